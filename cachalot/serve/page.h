// SPDX-License-Identifier: Apache-2.0
// The chat page of web/, embedded at build time. [docs/design/serve.md, Page]
#pragma once

#include <string_view>

namespace cachalot::serve {

struct PageFile {
  std::string_view path;  // "/", "/web/app.js"
  std::string_view content_type;
  std::string_view content;
};

// nullptr if the page has no such file.
const PageFile* FindPageFile(std::string_view path);

}  // namespace cachalot::serve
