// SPDX-License-Identifier: Apache-2.0
// Drafts with the MTP block: from the streams of position t and token t + 1 it makes logits of
// token t + 2. [V4 2.5; model.md 6.1]
#include <vector>

#include "cachalot/base/check.h"
#include "cachalot/engine/drafter.h"

namespace cachalot::engine {
namespace {

class MtpDrafter final : public Drafter {
 public:
  MtpDrafter(model::Forward& forward, uint32_t max_tokens, uint32_t max_requests)
      : forward_(forward),
        vocab_(forward.weights().config.vocab_size),
        logits_(size_t{max_requests} * vocab_) {
    rows_.reserve(max_tokens);
    next_.reserve(max_tokens);
    logit_rows_.reserve(max_requests);
  }

  uint32_t max_draft_tokens() const override { return 1; }

  Status Propose(std::span<DraftRequest> requests, TokenChooser& chooser) override {
    rows_.clear();
    next_.clear();
    logit_rows_.clear();
    for (DraftRequest& request : requests) {
      for (size_t i = 0; i < request.next.size(); ++i) {
        rows_.push_back(request.first_row + static_cast<uint32_t>(i));
        next_.push_back(request.next[i]);
      }
      if (!request.draft.empty()) logit_rows_.push_back(static_cast<uint32_t>(rows_.size()) - 1);
    }
    const size_t wanted = logit_rows_.size();
    CACHALOT_RETURN_IF_ERROR(
        forward_.Draft(rows_, next_, logit_rows_, {logits_.data(), wanted, vocab_}));
    size_t row = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      DraftRequest& request = requests[i];
      request.num_drafted = 0;
      if (request.draft.empty()) continue;
      request.draft[0] = chooser.Choose(i, 0, {logits_.data() + row++ * vocab_, vocab_});
      request.num_drafted = 1;
    }
    return {};
  }

 private:
  model::Forward& forward_;
  size_t vocab_;
  std::vector<float> logits_;                       // [max_requests, V]
  std::vector<uint32_t> rows_, next_, logit_rows_;  // of one call
};

}  // namespace

std::unique_ptr<Drafter> MakeMtpDrafter(model::Forward& forward, uint32_t max_tokens,
                                        uint32_t max_requests) {
  CACHALOT_CHECK(forward.options().with_mtp);
  return std::make_unique<MtpDrafter>(forward, max_tokens, max_requests);
}

}  // namespace cachalot::engine
