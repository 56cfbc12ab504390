// SPDX-License-Identifier: Apache-2.0
// The server's TLS context from a certificate and a key file.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <string>

#include "cachalot/base/error.h"

namespace cachalot::http {

// TLS 1.2 and later. kInvalidArgument naming the file at fault and why.
Result<std::unique_ptr<boost::asio::ssl::context>> LoadTls(const std::string& cert_path,
                                                           const std::string& key_path);

}  // namespace cachalot::http
