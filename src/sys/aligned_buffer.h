// Memory that O_DIRECT takes.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <span>

namespace convoy {

// O_DIRECT wants memory, offset and length to be multiples of the device's logical sector, which is
// at most 4 KiB.
inline constexpr std::size_t kDirectAlignment = 4096;

// A fixed piece of memory, aligned for O_DIRECT. Its content is not initialised.
class AlignedBuffer {
 public:
  explicit AlignedBuffer(std::size_t size)
      : bytes_(static_cast<std::byte*>(::operator new(size, std::align_val_t{kDirectAlignment}))),
        size_(size) {}

  std::span<std::byte> bytes() { return {bytes_.get(), size_}; }
  std::span<const std::byte> bytes() const { return {bytes_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* memory) const {
      ::operator delete(memory, std::align_val_t{kDirectAlignment});
    }
  };
  std::unique_ptr<std::byte, Free> bytes_;
  std::size_t size_;
};

}  // namespace convoy
