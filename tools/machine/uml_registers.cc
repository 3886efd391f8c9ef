// Lets User Mode Linux run where the processor has more registers than it knows, and everywhere
// faster. Preloaded into it.
//
// UML 6.1 keeps 2696 bytes of a guest process's extended registers, which was all there is up to
// AVX-512 and PKRU. The host takes registers back in one whole piece only (xstateregs_set in its
// arch/x86/kernel/fpu/regset.c), and processors with AMX have 11 KiB: UML then ends its first
// process with a segmentation fault. What it leaves out is given to the host as zero, and so as
// unused, since the header, which UML keeps, says so: nobody in the guest uses AMX, for which a
// process must ask its kernel first.
//
// Between two system calls of a guest process, and several times in a page fault, UML reads its
// extended registers and writes them back, mostly as they were. Writing is the dearest of all its
// ptrace calls, since the host allocates pages for it. Here they are kept, and written only when
// they differ and the process runs on: a suite then takes four fifths of the time.

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <dlfcn.h>
#include <elf.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

namespace {

using Ptrace = long(__ptrace_request request, pid_t process, void* address, void* data);

// PTRACE_OLDSETOPTIONS, by which UML begins with a process; its header and sys/ptrace.h exclude
// each other.
constexpr int kOldSetOptions = 21;

void* const kXstate = reinterpret_cast<void*>(std::uintptr_t{NT_X86_XSTATE});

// UML calls this on small stacks, and on one thread.
std::array<std::byte, 1U << 16U> whole_registers;

// How many bytes of registers the host has.
std::size_t host_size(Ptrace& next, pid_t process, void* kind) {
  static std::size_t size = 0;
  if (size > 0) return size;
  iovec all = {.iov_base = whole_registers.data(), .iov_len = whole_registers.size()};
  if (next(PTRACE_GETREGSET, process, kind, &all) == 0) size = all.iov_len;
  whole_registers.fill({});
  return size;
}

long write_now(Ptrace& next, pid_t process, void* kind, iovec registers) {
  const std::size_t size = host_size(next, process, kind);
  if (registers.iov_len < size) {
    std::memcpy(whole_registers.data(), registers.iov_base, registers.iov_len);
    registers = {.iov_base = whole_registers.data(), .iov_len = size};
  }
  return next(PTRACE_SETREGSET, process, kind, &registers);
}

// The registers of a process that has stopped.
struct Known {
  enum class State {
    kUnknown,
    kRead,     // it has these
    kWritten,  // it is to have them when it runs in earnest
  };
  pid_t process = 0;
  State state = State::kUnknown;
  std::size_t size = 0;
  std::array<std::byte, 4096> registers;

  // 0, or what the host has refused them with.
  long write_what_is_due(Ptrace& next) {
    const bool due = state == State::kWritten;
    state = State::kUnknown;
    if (!due) return 0;
    return write_now(next, process, kXstate, {.iov_base = registers.data(), .iov_len = size});
  }

  long read(Ptrace& next, iovec& to) {
    if (state == State::kUnknown || to.iov_len < size) {
      write_what_is_due(next);
      if (const long result = next(PTRACE_GETREGSET, process, kXstate, &to); result != 0)
        return result;
      if (to.iov_len > registers.size()) return 0;
      size = to.iov_len;
      std::memcpy(registers.data(), to.iov_base, size);
      state = State::kRead;
      return 0;
    }
    std::memcpy(to.iov_base, registers.data(), size);
    to.iov_len = size;
    return 0;
  }

  long write(Ptrace& next, const iovec& from) {
    if (from.iov_len > registers.size()) {
      state = State::kUnknown;
      return write_now(next, process, kXstate, from);
    }
    // A host with fewer registers has given fewer than UML writes.
    if (state == State::kRead && from.iov_len >= size &&
        std::memcmp(registers.data(), from.iov_base, size) == 0)
      return 0;
    size = from.iov_len;
    std::memcpy(registers.data(), from.iov_base, size);
    state = State::kWritten;
    return 0;
  }
};

Known& known_of(Ptrace& next, pid_t process) {
  static std::array<Known, 64> all;
  Known& known = all[static_cast<std::size_t>(process) % all.size()];
  if (known.process != process) {
    known.write_what_is_due(next);
    known.process = process;
  }
  return known;
}

}  // namespace

extern "C" long ptrace(__ptrace_request request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  const auto process = va_arg(arguments, pid_t);
  void* const address = va_arg(arguments, void*);
  void* const data = va_arg(arguments, void*);
  va_end(arguments);

  static auto* const next = reinterpret_cast<Ptrace*>(dlsym(RTLD_NEXT, "ptrace"));
  switch (static_cast<int>(request)) {
    case PTRACE_GETREGSET:
      if (address == kXstate)
        return known_of(*next, process).read(*next, *static_cast<iovec*>(data));
      break;
    case PTRACE_SETREGSET:
      if (address == kXstate)
        return known_of(*next, process).write(*next, *static_cast<const iovec*>(data));
      break;
    case PTRACE_CONT: {
      // A few instructions of UML's own in the process, which don't use these registers; but a
      // signal by which it is sent there changes them.
      Known& known = known_of(*next, process);
      if (known.state == Known::State::kRead) known.state = Known::State::kUnknown;
      break;
    }
    case PTRACE_SYSEMU:
    case PTRACE_SYSEMU_SINGLESTEP:
    case PTRACE_SYSCALL:
    case PTRACE_SINGLESTEP:
    case PTRACE_GETFPREGS:  // a part of them
    case PTRACE_SETFPREGS:
      if (const long result = known_of(*next, process).write_what_is_due(*next); result != 0)
        return result;
      break;
    case kOldSetOptions:  // it is new, perhaps under the number of one that has ended
      known_of(*next, process).state = Known::State::kUnknown;
      break;
    default:
      break;
  }
  return next(request, process, address, data);
}
