// SPDX-License-Identifier: Apache-2.0
#include "cachalot/checkpoint/page_owners.h"

#include <algorithm>
#include <functional>

#include "cachalot/threading/cpu_list.h"

namespace cachalot::checkpoint {
namespace {

// Bytes of each part in each page: [pages][parts].
class PageBytes {
 public:
  PageBytes(uint64_t size, uint64_t page_bytes, size_t num_parts)
      : page_bytes_(page_bytes),
        num_parts_(num_parts),
        bytes_((size + page_bytes - 1) / page_bytes * num_parts) {}

  void Add(uint64_t begin, uint64_t end, size_t part) {
    while (begin < end) {
      const uint64_t page = begin / page_bytes_;
      const uint64_t stop = std::min(end, (page + 1) * page_bytes_);
      bytes_[page * num_parts_ + part] += stop - begin;
      begin = stop;
    }
  }

  std::vector<uint32_t> Owners() const {
    std::vector<uint32_t> owners;
    for (auto page = bytes_.begin(); page != bytes_.end(); page += Step()) {
      owners.push_back(static_cast<uint32_t>(std::max_element(page, page + Step()) - page));
    }
    return owners;
  }

 private:
  ptrdiff_t Step() const { return static_cast<ptrdiff_t>(num_parts_); }

  uint64_t page_bytes_;
  size_t num_parts_;
  std::vector<uint64_t> bytes_;
};

}  // namespace

std::vector<uint32_t> PageOwners(const uint8_t* data, uint64_t size, uint64_t page_bytes,
                                 std::span<const TensorInfo> tensors, const NodeParts& parts) {
  PageBytes bytes(size, page_bytes, parts.num());
  const std::less<const uint8_t*> before;
  for (const TensorInfo& tensor : tensors) {
    if (before(tensor.data, data) || !before(tensor.data, data + size)) continue;
    if (tensor.shape.size() != 2 || tensor.shape[0] == 0) continue;
    const auto begin = static_cast<uint64_t>(tensor.data - data);
    const uint64_t row_bytes = tensor.bytes / tensor.shape[0];
    for (size_t part = 0; part < parts.num(); ++part) {
      bytes.Add(begin + parts.Begin(tensor.shape[0], part) * row_bytes,
                begin + parts.Begin(tensor.shape[0], part + 1) * row_bytes, part);
    }
  }
  return bytes.Owners();
}

std::vector<io::CopyPart> CopyParts(const io::MappedFile& shard,
                                    std::span<const TensorInfo> tensors,
                                    const Placement& placement) {
  const NodeParts parts = placement.Parts();
  std::vector<io::CopyPart> out(parts.num());
  for (size_t part = 0; part < parts.num(); ++part) {
    out[part].enter = [cpus = placement.Cpus(part)] {
      RestrictToCpus(cpus).IgnoreError("then the bytes lie where the system puts them");
    };
  }
  const std::vector<uint32_t> owners =
      PageOwners(shard.data(), shard.size(), io::kHugePageBytes, tensors, parts);
  for (uint64_t page = 0; page < owners.size(); ++page) {
    std::vector<io::CopyPart::Range>& ranges = out[owners[page]].ranges;
    const uint64_t begin = page * io::kHugePageBytes;
    const uint64_t end = std::min(shard.size(), begin + io::kHugePageBytes);
    if (!ranges.empty() && ranges.back().end == begin) {
      ranges.back().end = end;
    } else {
      ranges.push_back({begin, end});
    }
  }
  return out;
}

}  // namespace cachalot::checkpoint
