// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/row_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "cachalot/base/check.h"
#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"

namespace cachalot::cli {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

Error IoError(const std::string& path, const char* what) {
  const int reason = errno;
  const ErrorCode code = reason == ENOSPC ? ErrorCode::kResourceExhausted : ErrorCode::kIo;
  return Error{code, StrCat(path, ": cannot ", what, ": ", std::strerror(reason))};
}

std::string Header(const std::vector<RowTensor>& tensors) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  uint64_t offset = 0;
  for (const RowTensor& t : tensors) {
    const uint64_t bytes = t.rows * t.cols * sizeof(float);
    header[t.name] = {
        {"dtype", "F32"}, {"shape", {t.rows, t.cols}}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // float rows at multiples of 8, as writers do
  const uint64_t size = text.size();
  std::string out(sizeof(size), '\0');
  std::memcpy(out.data(), &size, sizeof(size));
  return out + text;
}

Status CheckSpace(const std::string& path, uint64_t bytes) {
  std::error_code ec;
  const auto folder = std::filesystem::absolute(path, ec).parent_path();
  const auto space = std::filesystem::space(folder, ec);
  if (ec || space.available >= bytes) return {};  // an unknown folder fails at open, by name
  return Error{ErrorCode::kResourceExhausted,
               StrCat(path, ": needs ", bytes, " bytes, the disk has ", space.available, " free")};
}

}  // namespace

Result<RowFile> RowFile::Create(const std::string& path, const std::vector<RowTensor>& tensors) {
  const std::string header = Header(tensors);
  RowFile file;
  file.tensors_ = tensors;
  uint64_t offset = header.size();
  for (const RowTensor& t : tensors) {
    file.offsets_.push_back(offset);
    offset += t.rows * t.cols * sizeof(float);
  }
  CACHALOT_RETURN_IF_ERROR(CheckSpace(path, offset));
  file.path_ = path;
  const std::string temporary = StrCat(path, ".tmp-", ::getpid());
  file.fd_ = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file.fd_ < 0) return IoError(path, "write");
  file.temporary_ = temporary;
  CACHALOT_RETURN_IF_ERROR(file.WriteAt(0, header));
  return file;
}

RowFile::RowFile(RowFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      fd_(std::exchange(other.fd_, -1)),
      tensors_(std::move(other.tensors_)),
      offsets_(std::move(other.offsets_)) {}

RowFile::~RowFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Status RowFile::WriteAt(uint64_t offset, std::span<const char> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return IoError(path_, "write");
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return {};
}

Status RowFile::Write(size_t index, uint64_t first, MatView<const float> rows) {
  const RowTensor& tensor = tensors_[index];
  CACHALOT_CHECK(rows.cols == tensor.cols && first + rows.rows <= tensor.rows);
  const uint64_t row_bytes = tensor.cols * sizeof(float);
  for (size_t r = 0; r < rows.rows; ++r) {
    const std::span<const float> row = rows.Row(r);
    CACHALOT_RETURN_IF_ERROR(WriteAt(offsets_[index] + (first + r) * row_bytes,
                                     {reinterpret_cast<const char*>(row.data()), row_bytes}));
  }
  return {};
}

Status RowFile::Publish() {
  if (::fsync(fd_) != 0) return IoError(path_, "sync");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return IoError(path_, "write");
  temporary_.clear();
  const std::string folder = std::filesystem::path(path_).parent_path().string();
  const int dir = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir >= 0) {
    ::fsync(dir);  // the data is safe; some file systems refuse to sync a folder
    ::close(dir);
  }
  return {};
}

}  // namespace cachalot::cli
