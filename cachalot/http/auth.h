// SPDX-License-Identifier: Apache-2.0
// API keys. Only SHA-256 digests are kept and compared, all of them, in constant time: neither a
// key's text, its length nor its place in the list shows in the time of an answer.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/http/exchange.h"

namespace cachalot::http {

enum class AuthResult : uint8_t {
  kOpen,     // no key is configured: everybody may
  kKey,      // a configured key
  kMissing,  // keys are configured, none was sent
  kWrong,    // none of them
};

struct Auth {
  AuthResult result = AuthResult::kOpen;
  size_t key_idx = 0;   // with kKey: which one, in the order configured
  uint64_t key_id = 0;  // and the first eight bytes of its digest: the same in every process
  bool allowed() const { return result == AuthResult::kOpen || result == AuthResult::kKey; }
};

class ApiKeys {
 public:
  // `keys`, then those of `key_file` (if not empty): one a line, surrounding blanks trimmed, empty
  // lines and lines that start with '#' skipped. An empty key, one with blanks or control
  // characters inside, and a file without any key are errors: they would open the server to more
  // than was meant.
  static Result<ApiKeys> Load(const std::vector<std::string>& keys, const std::string& key_file);

  bool empty() const { return digests_.empty(); }
  size_t size() const { return digests_.size(); }

  // Looks at `Authorization: Bearer KEY` and `x-api-key: KEY`; if both are sent, one good key is
  // enough.
  Auth Check(const Request& request) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  static Digest DigestOf(std::string_view key);
  Status Add(std::string_view key, std::string_view where);
  Auth Find(std::string_view key) const;

  std::vector<Digest> digests_;
};

// The key a request carries: Bearer first, then x-api-key; empty if none.
std::string_view PresentedKey(const Request& request);

// The first eight bytes of SHA-256: a name for `text` that nobody can craft another text for, as
// keeping tenants apart needs (2^64 work for a given one).
uint64_t Sha256Prefix(std::string_view text);

// "****" and the last four characters, for the error a client sees; all hidden if the key is
// shorter than 12, since four would tell too much.
std::string MaskKey(std::string_view key);

}  // namespace cachalot::http
