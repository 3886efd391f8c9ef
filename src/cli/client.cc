#include "cli/client.h"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <memory>

#include <curl/curl.h>

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

// --- libcurl ---

using Handle = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;
using Headers = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

// Who takes what arrives, and what it threw: exceptions don't go through libcurl.
struct Receiver {
  const std::function<void(std::string_view)>& receive;
  std::exception_ptr failure = nullptr;
};

std::size_t on_data(char* data, std::size_t size, std::size_t count, void* context) {
  auto& receiver = *static_cast<Receiver*>(context);
  try {
    receiver.receive({data, size * count});
    return size * count;
  } catch (...) {
    receiver.failure = std::current_exception();
    return 0;  // ends the transfer
  }
}

std::string url_of(CURL* curl, const ApiCall& call) {
  std::string url = std::string("http://convoy") + call.path;
  char separator = '?';
  for (const auto& [name, value] : call.query) {
    const std::unique_ptr<char, decltype(&curl_free)> escaped(
        curl_easy_escape(curl, value.data(), static_cast<int>(value.size())), &curl_free);
    url += fmt::format("{}{}={}", separator, name, escaped.get());
    separator = '&';
  }
  return url;
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
  const Handle curl(curl_easy_init(), &curl_easy_cleanup);
  const Headers headers(curl_slist_append(nullptr, "Content-Type: application/json"),
                        &curl_slist_free_all);
  const std::string body =
      call.body.is_null() ? "" : call.body.dump(-1, ' ', false, Json::error_handler_t::replace);
  curl_easy_setopt(curl.get(), CURLOPT_UNIX_SOCKET_PATH, socket_.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_URL, url_of(curl.get(), call).c_str());
  curl_easy_setopt(curl.get(), CURLOPT_CUSTOMREQUEST, call.method);
  curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
  // The environment's proxies are for the network.
  curl_easy_setopt(curl.get(), CURLOPT_PROXY, "");
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, &on_data);
  Receiver receiver{receive};
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &receiver);
  if (!body.empty()) {
    curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, body.c_str());
    curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE, static_cast<long>(body.size()));
  }
  const CURLcode result = curl_easy_perform(curl.get());
  if (receiver.failure) std::rethrow_exception(receiver.failure);
  if (result == CURLE_COULDNT_CONNECT) {
    long error = 0;
    curl_easy_getinfo(curl.get(), CURLINFO_OS_ERRNO, &error);
    if (error == EACCES) {
      throw Error(ErrorKind::kUnavailable, "{} is not yours to use: be root, or in its group",
                  socket_);
    }
    throw Error(ErrorKind::kUnavailable,
                "no daemon answers on {}: start it with 'convoy daemon', or give its --socket",
                socket_);
  }
  if (result != CURLE_OK) {
    throw Error(ErrorKind::kUnavailable, "the daemon on {} did not finish its answer: {}", socket_,
                curl_easy_strerror(result));
  }
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  return status;
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
  throw_answer(last);
}

}  // namespace convoy
