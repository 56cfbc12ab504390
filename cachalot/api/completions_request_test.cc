// SPDX-License-Identifier: Apache-2.0
#include "cachalot/api/test_support.h"
#include "cachalot/base/strings.h"

namespace cachalot::api {
namespace {

GenerateRequest Completion(std::string_view body) { return Accepted(Surface::kCompletions, body); }
std::string RefusedBody(std::string_view body) { return Refused(Surface::kCompletions, body); }

TEST(CompletionsRequest, PromptsInAllShapes) {
  EXPECT_EQ(Completion("{}").prompts[0].text, "Once upon a time,");
  EXPECT_EQ(Completion(R"({"prompt":"x"})").prompts[0].text, "x");
  EXPECT_EQ(Completion(R"({"prompt":[1,2.0]})").prompts[0].ids, (std::vector<uint32_t>{1, 2}));
  const GenerateRequest many = Completion(R"({"prompt":["x",[3]],"n":2})");
  ASSERT_EQ(many.prompts.size(), 2u);
  EXPECT_EQ(many.prompts[1].ids, (std::vector<uint32_t>{3}));
  EXPECT_EQ(many.NumChoices(), 4u);
  EXPECT_FALSE(many.thinking);
}

TEST(CompletionsRequest, SuffixIsFillInTheMiddle) {
  const GenerateRequest request =
      Completion(R"({"prompt":"a","suffix":"","max_tokens":4,"logprobs":0,"stop":"x"})");
  EXPECT_TRUE(request.has_suffix && request.logprobs);
  EXPECT_EQ(request.top_logprobs, 0u);
  EXPECT_FALSE(Completion(R"({"prompt":"a","suffix":null})").has_suffix);
}

TEST(CompletionsRequest, EveryRuleNamesItsField) {
  EXPECT_EQ(RefusedBody(R"({"prompt":{}})"),
            "prompt | prompt: is an object, expected a string or a list of token ids");
  EXPECT_EQ(RefusedBody(R"({"prompt":[]})"), "prompt | prompt: is an empty list");
  EXPECT_EQ(RefusedBody(R"({"prompt":[[]]})"), "prompt[0] | prompt[0]: is an empty list");
  EXPECT_EQ(RefusedBody(R"({"prompt":[1,-2]})"),
            "prompt[1] | prompt[1]: is -2, expected an integer from 0 to 4294967295");
  EXPECT_EQ(RefusedBody(R"({"echo":true,"suffix":"x"})"),
            "echo | echo cannot be used together with suffix or logprobs");
  EXPECT_EQ(RefusedBody(R"({"echo":true,"logprobs":1})"),
            "echo | echo cannot be used together with suffix or logprobs");
  EXPECT_EQ(RefusedBody(R"({"prompt":[1],"suffix":"x"})"),
            "suffix | suffix: needs a prompt of text, not of token ids");
  EXPECT_EQ(RefusedBody(R"({"logprobs":21})"),
            "logprobs | logprobs: is 21, expected an integer from 0 to 20");
}

}  // namespace
}  // namespace cachalot::api
