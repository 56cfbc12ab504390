// SPDX-License-Identifier: Apache-2.0
#include "cachalot/http/auth.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "cachalot/http/wire_internal.h"

namespace cachalot::http {
namespace {

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

std::string_view BearerKey(const Request& request) {
  constexpr std::string_view kScheme = "Bearer ";
  const std::string_view value = request.Header("Authorization");
  if (!EqualsIgnoringCase(value.substr(0, kScheme.size()), kScheme)) return {};
  return Trim(value.substr(kScheme.size()));
}

std::string_view HeaderKey(const Request& request) { return Trim(request.Header("x-api-key")); }

}  // namespace

std::string_view PresentedKey(const Request& request) {
  const std::string_view bearer = BearerKey(request);
  return bearer.empty() ? HeaderKey(request) : bearer;
}

std::string MaskKey(std::string_view key) {
  return key.size() < 12 ? "****" : fmt::format("****{}", key.substr(key.size() - 4));
}

uint64_t Sha256Prefix(std::string_view text) {
  std::array<unsigned char, 32> digest;
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  uint64_t prefix = 0;
  for (size_t i = 0; i < sizeof(prefix); ++i) prefix = prefix << 8 | digest[i];
  return prefix;
}

ApiKeys::Digest ApiKeys::DigestOf(std::string_view key) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

Status ApiKeys::Add(std::string_view key, std::string_view where) {
  const bool printable =
      std::all_of(key.begin(), key.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (key.empty() || !printable) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: {}; expected printable ASCII without blanks", where,
                             key.empty() ? "empty API key"
                                         : "API key with a blank or control "
                                           "character, or not ASCII")};
  }
  digests_.push_back(DigestOf(key));
  return {};
}

Result<ApiKeys> ApiKeys::Load(const std::vector<std::string>& keys, const std::string& key_file) {
  ApiKeys out;
  for (const std::string& key : keys) CACHALOT_RETURN_IF_ERROR(out.Add(key, "--api-key"));
  if (key_file.empty()) return out;
  std::ifstream file(key_file);
  if (!file) {
    return Error{ErrorCode::kIo,
                 fmt::format("API key file {}: cannot read: {}", key_file, std::strerror(errno))};
  }
  const size_t given = out.size();
  std::string line;
  for (size_t number = 1; std::getline(file, line); ++number) {
    const std::string_view key = Trim(line);
    if (key.empty() || key.front() == '#') continue;
    CACHALOT_RETURN_IF_ERROR(
        out.Add(key, fmt::format("API key file {}, line {}", key_file, number)));
  }
  if (file.bad() || out.size() == given) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("API key file {}: no key in it; expected one key a line", key_file)};
  }
  return out;
}

Auth ApiKeys::Find(std::string_view key) const {
  const Digest digest = DigestOf(key);
  Auth auth = {.result = AuthResult::kWrong};
  for (size_t i = 0; i < digests_.size(); ++i) {  // all of them: no early exit
    if (CRYPTO_memcmp(digest.data(), digests_[i].data(), digest.size()) == 0) {
      auth = {.result = AuthResult::kKey, .key_idx = i};
      std::memcpy(&auth.key_id, digest.data(), sizeof(auth.key_id));
    }
  }
  return auth;
}

Auth ApiKeys::Check(const Request& request) const {
  if (empty()) return {};
  const std::string_view bearer = BearerKey(request);
  const std::string_view header = HeaderKey(request);
  if (bearer.empty() && header.empty()) return {.result = AuthResult::kMissing};
  const Auth first = Find(bearer.empty() ? header : bearer);
  if (first.allowed() || bearer.empty() || header.empty()) return first;
  return Find(header);
}

}  // namespace cachalot::http
