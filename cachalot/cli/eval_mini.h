// SPDX-License-Identifier: Apache-2.0
// cachalot eval mini: what the small model of the repository was trained to do, on tasks it never
// saw. [recipes/README.md]
#pragma once

#include <CLI/CLI.hpp>

namespace cachalot::cli {

void AddEvalMini(CLI::App& eval, int& exit_code);

}  // namespace cachalot::cli
