// A server of HTTP for tests, whose answers are a script's.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <functional>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "sys/file.h"

namespace convoy {

struct ServedRequest {
  std::string method, target;
  std::map<std::string, std::string> headers;  // names as they came, in lower case
  std::string body;

  bool has(const std::string& name) const { return headers.contains(name); }
};

struct Answer {
  int status = 200;
  std::map<std::string, std::string> headers = {};
  std::string body = {};
};

// A port of the loopback interface.
class LoopbackListener {
 public:
  LoopbackListener() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (::bind(socket_.get(), any, size) != 0 || ::listen(socket_.get(), 16) != 0 ||
        ::getsockname(socket_.get(), any, &size) != 0)
      throw system_error(errno, "the server can't listen");
    host_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }

  const std::string& host() const { return host_; }
  // The next connection; none after shut_down().
  UniqueFd accept() const {
    return UniqueFd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }
  void shut_down() { ::shutdown(socket_.get(), SHUT_RDWR); }

 private:
  UniqueFd socket_;
  std::string host_;
};

// Takes connections, and says no more than a greeting.
class SilentServer {
 public:
  explicit SilentServer(std::string greeting = "")
      : greeting_(std::move(greeting)), thread_([this] { serve(); }) {}
  ~SilentServer() { listener_.shut_down(); }

  const std::string& host() const { return listener_.host(); }
  int connections() const { return count_; }
  // Whether so many bytes have come by one of them. Ends the server.
  bool has_received(int size) {
    listener_.shut_down();
    thread_.join();
    return std::ranges::any_of(connections_, [&](const UniqueFd& connection) {
      int received = 0;
      return ::ioctl(connection.get(), FIONREAD, &received) == 0 && received >= size;
    });
  }

 private:
  void serve() {
    while (UniqueFd connection = listener_.accept()) {
      if (!greeting_.empty()) write_all(connection.get(), as_bytes(greeting_));
      connections_.push_back(std::move(connection));
      ++count_;
    }
  }

  const std::string greeting_;
  LoopbackListener listener_;
  std::atomic<int> count_ = 0;
  std::vector<UniqueFd> connections_;
  std::jthread thread_;  // last, since it uses all the others
};

// Serves one connection after the other, one request in each.
class ScriptedServer {
 public:
  using Script = std::function<Answer(const ServedRequest&)>;

  explicit ScriptedServer(Script script)
      : script_(std::move(script)), thread_([this] { serve(); }) {}
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;
  ~ScriptedServer() { listener_.shut_down(); }

  const std::string& host() const { return listener_.host(); }
  // For what the script uses as well.
  template <typename Action>
  auto with_lock(Action&& action) {
    const std::lock_guard lock(mutex_);
    return std::forward<Action>(action)();
  }
  std::vector<ServedRequest> requests() {
    return with_lock([&] { return requests_; });
  }

 private:
  void serve() {
    while (const UniqueFd connection = listener_.accept()) {
      const ServedRequest request = receive(connection.get());
      const Answer answer = with_lock([&] {
        requests_.push_back(request);
        return script_(request);
      });
      std::string text =
          fmt::format("HTTP/1.1 {} Something\r\nconnection: close\r\n", answer.status);
      for (const auto& [name, value] : answer.headers)
        text += fmt::format("{}: {}\r\n", name, value);
      if (!answer.headers.contains("content-length"))
        text += fmt::format("content-length: {}\r\n", answer.body.size());
      text += "\r\n";
      if (request.method != "HEAD") text += answer.body;
      write_all(connection.get(), as_bytes(text));
    }
  }

  static ServedRequest receive(int connection) {
    std::string text;
    const auto read_more = [&] {
      std::array<char, 4096> part = {};
      const ssize_t count = ::read(connection, part.data(), part.size());
      if (count <= 0) return false;
      text.append(part.data(), static_cast<std::size_t>(count));
      return true;
    };
    while (text.find("\r\n\r\n") == std::string::npos && read_more()) {
    }
    ServedRequest request;
    std::istringstream head(text.substr(0, text.find("\r\n\r\n")));
    std::string line;
    head >> request.method >> request.target;
    std::getline(head, line);
    while (std::getline(head, line)) {
      while (line.ends_with('\r')) line.pop_back();
      std::string name = line.substr(0, line.find(':'));
      std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
      const std::size_t value = line.find_first_not_of(' ', name.size() + 1);
      request.headers[name] = value == std::string::npos ? "" : line.substr(value);
    }
    const std::size_t length =
        request.has("content-length") ? std::stoul(request.headers["content-length"]) : 0;
    const std::size_t begin = text.find("\r\n\r\n") + 4;
    while (text.size() < begin + length && read_more()) {
    }
    request.body = text.substr(begin);
    return request;
  }

  const Script script_;
  LoopbackListener listener_;
  std::mutex mutex_;
  std::vector<ServedRequest> requests_;
  std::jthread thread_;  // last, since it uses all the others
};

}  // namespace convoy
