// SPDX-License-Identifier: Apache-2.0
#include "cachalot/serve/page.h"
namespace cachalot::serve {
const PageFile* FindPageFile(std::string_view) { return nullptr; }
}  // namespace cachalot::serve
