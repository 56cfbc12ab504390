// SPDX-License-Identifier: Apache-2.0
// Errors as values. Everything that depends on input, files, memory or other machines returns a
// Result<T> or Status; bugs abort through base/check.h. The library throws nothing: exceptions of
// third-party code are caught where they are called and become an Error.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "cachalot/base/check.h"

namespace cachalot {

// The closed list of ways to fail; one table in error.cc maps each to a name, exit code and HTTP
// status.
enum class ErrorCode : uint8_t {
  kInvalidArgument,    // the caller asked for something that makes no sense
  kNotFound,           // a file, tensor or model that is not there
  kDataCorruption,     // bytes that break their own format
  kVersionMismatch,    // a format or model generation we do not read
  kIo,                 // the operating system refused
  kResourceExhausted,  // no memory, disk or context left
  kUnsupported,        // well-formed, but not implemented
  kUnavailable,        // try again later
  kCancelled,
  kDeadlineExceeded,
  kInternal,
};

std::string_view ErrorCodeName(ErrorCode code);  // "kDataCorruption" -> "data corruption"
int ExitCode(ErrorCode code);                    // 1..; the CLI's exit codes
int HttpStatus(ErrorCode code);

// A message names the thing, the value found, the value expected and, if known, the remedy.
struct Error {
  ErrorCode code;
  std::string message;
};

// A kind of error E that can be made from another, F, says how: static E From(const F&).
template <typename E, typename F>
concept MadeFrom = requires(const F& f) {
  { E::From(f) } -> std::same_as<E>;
};

// A value or why there is none. A module whose errors say more than Error names its own E.
template <typename T, typename E = Error>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit
  Result(E error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit
  template <typename F>
  requires MadeFrom<E, F> Result(const F& error) : Result(E::From(error)) {}  // NOLINT: implicit

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  // Pre: ok().
  T& value() & {
    CACHALOT_CHECK(ok());
    return std::get<0>(state_);
  }
  const T& value() const& {
    CACHALOT_CHECK(ok());
    return std::get<0>(state_);
  }
  T&& value() && {
    CACHALOT_CHECK(ok());
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  // Pre: !ok().
  const E& error() const {
    CACHALOT_CHECK(!ok());
    return std::get<1>(state_);
  }

 private:
  std::variant<T, E> state_;
};

template <typename E>
class [[nodiscard]] Result<void, E> {
 public:
  Result() = default;
  Result(E error) : error_(std::move(error)) {}  // NOLINT: implicit
  template <typename F>
  requires MadeFrom<E, F> Result(const F& error) : Result(E::From(error)) {}  // NOLINT: implicit

  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const E& error() const {
    CACHALOT_CHECK(!ok());
    return *error_;
  }
  // Dropping an error is spelled out: the reason is for the reader.
  void IgnoreError(std::string_view /*reason*/) const {}

 private:
  std::optional<E> error_;
};

using Status = Result<void>;

}  // namespace cachalot

#define CACHALOT_CONCAT_INNER(a, b) a##b
#define CACHALOT_CONCAT(a, b) CACHALOT_CONCAT_INNER(a, b)

// CACHALOT_TRY(auto x, F()) declares x from a Result, or returns its error from this function.
#define CACHALOT_TRY(declaration, expression) \
  CACHALOT_TRY_INNER(CACHALOT_CONCAT(cachalot_try_, __LINE__), declaration, expression)
#define CACHALOT_TRY_INNER(temporary, declaration, expression) \
  auto temporary = (expression);                               \
  if (!temporary.ok()) return temporary.error();               \
  declaration = std::move(temporary).value()

// CACHALOT_RETURN_IF_ERROR(F()) for a Status.
#define CACHALOT_RETURN_IF_ERROR(expression) \
  if (auto cachalot_status = (expression); !cachalot_status.ok()) return cachalot_status.error()
