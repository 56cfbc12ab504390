// SPDX-License-Identifier: Apache-2.0
#include "cachalot/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace cachalot {

void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: CACHALOT_CHECK failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace cachalot
