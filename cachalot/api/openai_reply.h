// SPDX-License-Identifier: Apache-2.0
// What the replies of chat and text completions share: the envelope, one chunk a delta, a finish
// chunk that waits for the usage, [DONE]. Internal to the module. [api.md 4.10, 5]
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cachalot/api/reply.h"

namespace cachalot::api {

class OpenAiReply : public ReplyWriter {
 public:
  std::string End(uint32_t choice, Finish finish, std::string_view stop_string) override;
  std::string Done(const Usage& usage) override;
  std::string Fail(const ApiError& error) override;
  std::string Body() const override;

 protected:
  struct Names {
    Surface surface;
    std::string_view id_prefix;
    std::string_view whole;  // `object` of a whole reply
    std::string_view chunk;  // and of a chunk
  };
  OpenAiReply(const GenerateRequest& request, ReplyInfo info, const Names& names);

  // Elements of `choices`: the last of a stream, without text, and that of a whole reply.
  virtual std::string LastChoice(uint32_t choice) const = 0;
  virtual std::string WholeChoice(uint32_t choice) const = 0;
  // As a client is told of it.
  virtual Finish FinishOf(uint32_t /*choice*/, Finish finish) const { return finish; }

  std::string Chunk(const std::string& choice) const { return Chunk(choice, ""); }
  // The `finish_reason` of a choice that ended, JSON text.
  std::string FinishReason(uint32_t choice) const;
  bool stream() const { return stream_; }
  const std::string& id() const { return info_.id; }

 private:
  std::string Chunk(const std::string& choice, const std::string& usage) const;
  std::string Envelope(std::string_view object, const std::string& choices,
                       const std::string& usage) const;

  ReplyInfo info_;
  Names names_;
  bool stream_;
  bool include_usage_;
  std::vector<Finish> finishes_;
  size_t num_open_;
  uint32_t last_ = 0;  // the choice that ended last
  std::string usage_;
  std::string failure_;
};

}  // namespace cachalot::api
