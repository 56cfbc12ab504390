// SPDX-License-Identifier: Apache-2.0
// Checks for bugs: a violated precondition or invariant prints its place and aborts. Never used on
// anything that comes from outside the program (see base/error.h).
#pragma once

namespace cachalot {

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);

}  // namespace cachalot

#define CACHALOT_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::cachalot::CheckFailed(__FILE__, __LINE__, #condition))

#ifdef NDEBUG
#define CACHALOT_DCHECK(condition) static_cast<void>(0)
#else
#define CACHALOT_DCHECK(condition) CACHALOT_CHECK(condition)
#endif
