// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cachalot/http/tls_internal.h"

namespace cachalot::http {
namespace {

namespace ssl = boost::asio::ssl;

Error FileError(std::string_view flag, const std::string& path, std::string_view expected,
                const std::string& found) {
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} {}: {}; expected {}", flag, path, found, expected)};
}

}  // namespace

Result<std::unique_ptr<ssl::context>> LoadTls(const std::string& cert_path,
                                              const std::string& key_path) {
  auto context = std::make_unique<ssl::context>(ssl::context::tls_server);
  boost::system::error_code ec;
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  // No renegotiation: a client could make us repeat the expensive half of the handshake for ever.
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  // Idle connections give their 2 x 16 KiB record buffers back.
  SSL_CTX_set_mode(context->native_handle(), SSL_MODE_RELEASE_BUFFERS);
  // OpenSSL's default asks the terminal for a passphrase, which would hang a service.
  context->set_password_callback(
      [](size_t, ssl::context::password_purpose) { return std::string(); }, ec);
  context->use_certificate_chain_file(cert_path, ec);
  if (ec) return FileError("TLS certificate", cert_path, "a PEM certificate chain", ec.message());
  context->use_private_key_file(key_path, ssl::context::pem, ec);
  if (ec) {
    return FileError("TLS key", key_path, fmt::format("the unencrypted PEM key of {}", cert_path),
                     ec.message());
  }
  if (SSL_CTX_check_private_key(context->native_handle()) != 1) {
    return FileError("TLS key", key_path, fmt::format("the key of {}", cert_path),
                     "the key of another certificate");
  }
  return context;
}

}  // namespace cachalot::http
