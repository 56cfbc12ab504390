// SPDX-License-Identifier: Apache-2.0
// The chat page's files, from the header that cmake/EmbedFiles.cmake makes of web/.
#include "cachalot/serve/page.h"

// Absent until CMakeLists.txt calls cachalot_embed_files(); the server then has no page.
#if __has_include("cachalot/serve/web_files.h")
#include "cachalot/serve/web_files.h"
#define CACHALOT_HAS_PAGE 1
#endif

namespace cachalot::serve {

#ifdef CACHALOT_HAS_PAGE

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

#else

const PageFile* FindPageFile(std::string_view) { return nullptr; }

#endif

}  // namespace cachalot::serve
