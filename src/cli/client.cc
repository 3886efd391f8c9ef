#include "cli/client.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <span>
#include <string_view>

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/progress_bar.h"

namespace convoy {
namespace {

// --- Ctrl-C ---

volatile std::sig_atomic_t interrupts = 0;

void on_interrupt(int) {
  interrupts = interrupts + 1;
  if (interrupts > 1) std::_Exit(exit_status(ErrorKind::kCancelled));
}

// While one lives, SIGINT and SIGTERM are counted.
class InterruptCounter {
 public:
  InterruptCounter() {
    interrupts = 0;
    struct sigaction action = {};
    action.sa_handler = &on_interrupt;
    sigaction(SIGINT, &action, &old_interrupt_);
    sigaction(SIGTERM, &action, &old_terminate_);
  }
  InterruptCounter(const InterruptCounter&) = delete;
  InterruptCounter& operator=(const InterruptCounter&) = delete;
  ~InterruptCounter() {
    sigaction(SIGINT, &old_interrupt_, nullptr);
    sigaction(SIGTERM, &old_terminate_, nullptr);
  }

 private:
  struct sigaction old_interrupt_ = {};
  struct sigaction old_terminate_ = {};
};

// --- HTTP ---

Error not_finished(const std::string& socket) {
  return Error(ErrorKind::kUnavailable, "the daemon on {} did not finish its answer", socket);
}

class Connection {
 public:
  // Throws kUnavailable, saying what to do, if no daemon listens.
  explicit Connection(const std::string& path)
      : path_(path), fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (fd_ < 0) throw system_error(errno, "socket");
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    const bool fits = path.copy(address.sun_path, sizeof address.sun_path - 1) == path.size();
    if (fits && ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
      return;
    const int error = errno;
    ::close(fd_);
    if (fits && error == EACCES) {
      throw Error(ErrorKind::kUnavailable, "{} is not yours to use: be root, or in its group",
                  path);
    }
    throw Error(ErrorKind::kUnavailable,
                "no daemon answers on {}: start it with 'convoy daemon', or give its --socket",
                path);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() { ::close(fd_); }

  void send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count < 0 && errno == EINTR) continue;
      // A daemon that refuses the call before it has read all of it may still have answered.
      if (count < 0) return;
      bytes.remove_prefix(static_cast<std::size_t>(count));
    }
  }

  // What has arrived, in `buffer`; empty at the end. A signal does not end it: progress tells of
  // Ctrl-C soon enough.
  std::string_view receive(std::span<char> buffer) {
    ssize_t count = 0;
    do {
      count = ::recv(fd_, buffer.data(), buffer.size(), 0);
    } while (count < 0 && errno == EINTR);
    if (count < 0) throw not_finished(path_);
    return {buffer.data(), static_cast<std::size_t>(count)};
  }

 private:
  const std::string& path_;
  int fd_;
};

// All but RFC 3986's unreserved characters as %XX.
std::string percent_encoded(std::string_view text) {
  constexpr std::string_view kUnreserved =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  std::string encoded;
  for (const char c : text) {
    if (kUnreserved.find(c) != std::string_view::npos)
      encoded += c;
    else
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return encoded;
}

std::string request_of(const ApiCall& call) {
  std::string target = call.path;
  char separator = '?';
  for (const auto& [name, value] : call.query) {
    target += fmt::format("{}{}={}", separator, name, percent_encoded(value));
    separator = '&';
  }
  const std::string body =
      call.body.is_null() ? "" : call.body.dump(-1, ' ', false, Json::error_handler_t::replace);
  return fmt::format(
      "{} {} HTTP/1.0\r\nHost: convoy\r\nContent-Type: application/json\r\n"
      "Content-Length: {}\r\n\r\n{}",
      call.method, target, body.size(), body);
}

struct AnswerHead {
  long status = 0;
  std::optional<std::size_t> length;  // of the body; without: it ends with the connection
};

// Of "HTTP/1.0 200 OK" and the lines after it.
AnswerHead parse_head(std::string_view head) {
  constexpr std::string_view kLength = "\r\nContent-Length: ";
  AnswerHead parsed;
  const auto number_at = [head](std::size_t at, auto& number) {
    std::from_chars(head.data() + at, head.data() + head.size(), number);
  };
  const std::size_t status = head.find(' ');
  if (head.starts_with("HTTP/1.") && status != std::string_view::npos)
    number_at(status + 1, parsed.status);
  const std::size_t length = head.find(kLength);
  if (length != std::string_view::npos) number_at(length + kLength.size(), parsed.length.emplace());
  return parsed;
}

// --- Answers ---

Json parse(const std::string& text) {
  try {
    return Json::parse(text);
  } catch (const Json::exception&) {
    throw Error(ErrorKind::kInternal, "the daemon's answer is not JSON: {}", text.substr(0, 200));
  }
}

[[noreturn]] void throw_answer(const Json& answer) {
  throw Error(error_kind_from_string(answer.value("Kind", "internal")), "{}",
              answer.value("Error", "unknown error"));
}

// Calls `handle` for each whole line in `buffer` and takes it out.
void take_lines(std::string& buffer, const std::function<void(const std::string&)>& handle) {
  std::size_t end = 0;
  while ((end = buffer.find('\n')) != std::string::npos) {
    const std::string line = buffer.substr(0, end);
    buffer.erase(0, end + 1);
    handle(line);
  }
}

}  // namespace

long Client::send(const ApiCall& call, const std::function<void(std::string_view)>& receive) {
  Connection connection(socket_);
  connection.send(request_of(call));
  std::array<char, 16384> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled by recv
  std::string head;
  std::size_t head_end = std::string::npos;
  while ((head_end = head.find("\r\n\r\n")) == std::string::npos) {
    const std::string_view piece = connection.receive(buffer);
    if (piece.empty()) throw not_finished(socket_);
    head += piece;
  }
  const std::string first = head.substr(head_end + 4);
  head.resize(head_end);
  const AnswerHead answer = parse_head(head);
  if (answer.status == 0) throw not_finished(socket_);
  if (!first.empty()) receive(first);
  std::size_t received = first.size();
  while (received < answer.length.value_or(SIZE_MAX)) {
    const std::string_view piece = connection.receive(buffer);
    if (piece.empty() && answer.length) throw not_finished(socket_);
    if (piece.empty()) break;
    receive(piece);
    received += piece.size();
  }
  return answer.status;
}

Json Client::call(const ApiCall& call) {
  std::string text;
  const long status = send(call, [&](std::string_view piece) { text += piece; });
  if (text.empty() && status == 200) return nullptr;
  Json answer = parse(text);
  if (status != 200) throw_answer(answer);
  return answer;
}

Json Client::run_job(const ApiCall& call) {
  const InterruptCounter counter;
  ProgressBar bar;
  std::string buffer;
  Json last;
  bool cancelled = false;
  send(call, [&](std::string_view piece) {
    buffer += piece;
    take_lines(buffer, [&](const std::string& line) {
      last = parse(line);
      if (!last.contains("Job")) return;
      const Json& job = last["Job"];
      bar.show(job.value("BytesDone", std::uint64_t{0}), job.value("BytesTotal", std::uint64_t{0}));
      if (interrupts > 0 && !std::exchange(cancelled, true)) {
        try {
          Client(socket_).call({"DELETE", "/v1/job", {{"id", job.value("ID", "")}}});
        } catch (const Error& error) {
          // It may have ended in this moment.
          if (error.kind() != ErrorKind::kNotFound) throw;
        }
      }
    });
  });
  bar.finish();
  // An error before the job began comes without a line's end.
  if (!buffer.empty()) last = parse(buffer);
  if (last.contains("Result")) return last["Result"];
  if (!last.contains("Error")) throw not_finished(socket_);
  throw_answer(last);
}

}  // namespace convoy
