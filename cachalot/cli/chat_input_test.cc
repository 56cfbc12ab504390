// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/chat_input.h"

#include <gtest/gtest.h>

namespace cachalot::cli {
namespace {

TEST(IsChatCommand, TellsCommandsFromText) {
  EXPECT_TRUE(IsChatCommand("/help"));
  EXPECT_TRUE(IsChatCommand("/?"));
  EXPECT_TRUE(IsChatCommand("/read /etc/hosts"));
  EXPECT_FALSE(IsChatCommand("/usr/lib is full"));
  EXPECT_FALSE(IsChatCommand("/"));
  EXPECT_FALSE(IsChatCommand("/ 2"));
  EXPECT_FALSE(IsChatCommand("hello /help"));
  EXPECT_FALSE(IsChatCommand("/help\nme"));
}

TEST(ParseChatCommand, TrimsTheArgument) {
  const auto command = ParseChatCommand("/system   You are brief.  ");
  ASSERT_TRUE(command.ok());
  EXPECT_EQ(command->kind, ChatCommandKind::kSystem);
  EXPECT_EQ(command->argument, "You are brief.");
}

TEST(ParseChatCommand, ChecksArguments) {
  for (const char* line : {"/think", "/think hard", "/save", "/load  ", "/read", "/clear now",
                           "/quit 1", "/nonsense", "/Help"}) {
    const auto command = ParseChatCommand(line);
    ASSERT_FALSE(command.ok()) << line;
    EXPECT_EQ(command.error().code, ErrorCode::kInvalidArgument);
  }
  for (const char* level : {"off", "low", "high", "max"}) {
    EXPECT_TRUE(ParseChatCommand(std::string("/think ") + level).ok());
  }
}

TEST(ChatHelp, NamesEveryCommand) {
  for (const char* name :
       {"/think", "/system", "/read", "/save", "/load", "/clear", "/stats", "/regen", "/quit"}) {
    EXPECT_NE(ChatHelp().find(name), std::string_view::npos) << name;
  }
}

TEST(InputAssembler, OneLineIsOneMessage) {
  InputAssembler input;
  EXPECT_EQ(input.Push("hello"), "hello");
  EXPECT_EQ(input.Push(""), "");
  EXPECT_FALSE(input.pending());
}

TEST(InputAssembler, BackslashContinues) {
  InputAssembler input;
  EXPECT_EQ(input.Push("a\\"), std::nullopt);
  EXPECT_TRUE(input.pending());
  EXPECT_EQ(input.Push("b"), "a\nb");
  EXPECT_FALSE(input.pending());
}

TEST(InputAssembler, BlockIsTakenAsItIs) {
  InputAssembler input;
  EXPECT_EQ(input.Push("\"\"\""), std::nullopt);
  EXPECT_EQ(input.Push("a\\"), std::nullopt);
  EXPECT_EQ(input.Push(""), std::nullopt);
  EXPECT_EQ(input.Push("\"\"\""), "a\\\n");
  EXPECT_EQ(input.Push("\"\"\"one"), std::nullopt);
  EXPECT_EQ(input.Push("two\"\"\""), "one\ntwo");
  EXPECT_EQ(input.Push("\"\"\"whole\"\"\""), "whole");
}

TEST(InputAssembler, EndOfInputDeliversTheRest) {
  InputAssembler input;
  EXPECT_EQ(input.Push("\"\"\"one"), std::nullopt);
  EXPECT_EQ(input.Flush(), "one");
  EXPECT_FALSE(input.pending());
}

}  // namespace
}  // namespace cachalot::cli
