// SPDX-License-Identifier: Apache-2.0
#include "cachalot/base/error.h"

#include <array>

namespace cachalot {
namespace {

struct ErrorRow {
  std::string_view name;
  int exit_code;
  int http_status;
};

// Indexed by ErrorCode. Exit code 1 is for what the caller can mend in the input; 2 is left to
// usage errors of the command line.
constexpr std::array<ErrorRow, 11> kErrorTable = {{
    {"invalid argument", 1, 400},
    {"not found", 3, 404},
    {"data corruption", 4, 422},
    {"version mismatch", 5, 422},
    {"input/output error", 6, 500},
    {"resource exhausted", 7, 503},
    {"unsupported", 8, 501},
    {"unavailable", 9, 503},
    {"cancelled", 130, 499},
    {"deadline exceeded", 10, 504},
    {"internal error", 11, 500},
}};

const ErrorRow& Row(ErrorCode code) { return kErrorTable[static_cast<size_t>(code)]; }

}  // namespace

std::string_view ErrorCodeName(ErrorCode code) { return Row(code).name; }
int ExitCode(ErrorCode code) { return Row(code).exit_code; }
int HttpStatus(ErrorCode code) { return Row(code).http_status; }

}  // namespace cachalot
