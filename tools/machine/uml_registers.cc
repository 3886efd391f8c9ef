// Lets User Mode Linux run where the processor has more registers than it knows. Preloaded into it.
//
// UML 6.1 keeps 2696 bytes of a guest process's extended registers, which was all there is up to
// AVX-512 and PKRU. The host takes registers back in one whole piece only (xstateregs_set in its
// arch/x86/kernel/fpu/regset.c), and processors with AMX have 11 KiB: UML then ends its first
// process with a segmentation fault. What it leaves out is given to the host as zero, and so as
// unused, since the header, which UML keeps, says so: nobody in the guest uses AMX, for which a
// process must ask its kernel first.

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

// UML calls this on small stacks, and on one thread.
std::array<std::byte, 1U << 16U> registers;

// How many bytes of registers the host has.
std::size_t host_size(Ptrace& next, pid_t process, void* kind) {
  static std::size_t size = 0;
  if (size > 0) return size;
  iovec all = {.iov_base = registers.data(), .iov_len = registers.size()};
  if (next(PTRACE_GETREGSET, process, kind, &all) == 0) size = all.iov_len;
  registers.fill({});
  return size;
}

}  // namespace

extern "C" long ptrace(__ptrace_request request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  const auto process = va_arg(arguments, pid_t);
  void* const address = va_arg(arguments, void*);
  void* data = va_arg(arguments, void*);
  va_end(arguments);

  static auto* const next = reinterpret_cast<Ptrace*>(dlsym(RTLD_NEXT, "ptrace"));
  iovec whole = {};
  if (request == PTRACE_SETREGSET && reinterpret_cast<std::uintptr_t>(address) == NT_X86_XSTATE) {
    const iovec& known = *static_cast<const iovec*>(data);
    const std::size_t size = host_size(*next, process, address);
    if (known.iov_len < size) {
      std::memcpy(registers.data(), known.iov_base, known.iov_len);
      whole = {.iov_base = registers.data(), .iov_len = size};
      data = &whole;
    }
  }
  return next(request, process, address, data);
}
