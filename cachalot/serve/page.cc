// SPDX-License-Identifier: Apache-2.0
// The chat page's files, from the header that cmake/EmbedFiles.cmake makes of web/.
#include "cachalot/serve/page.h"

#include "cachalot/serve/web_files.h"

namespace cachalot::serve {

const PageFile* FindPageFile(std::string_view path) {
  static constexpr PageFile kFiles[] = {
      {"/", "text/html; charset=utf-8", web::kIndexHtml},
      {"/web/app.js", "text/javascript; charset=utf-8", web::kAppJs},
      {"/web/markdown.js", "text/javascript; charset=utf-8", web::kMarkdownJs},
      {"/web/stream.js", "text/javascript; charset=utf-8", web::kStreamJs},
      {"/web/style.css", "text/css; charset=utf-8", web::kStyleCss},
  };
  for (const PageFile& file : kFiles) {
    if (file.path == path) return &file;
  }
  return nullptr;
}

}  // namespace cachalot::serve
