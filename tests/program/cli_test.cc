// SPDX-License-Identifier: Apache-2.0
// The real binary: commands on the small model, what they print, and how they fail.
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "cachalot/base/json.h"
#include "cachalot/base/strings.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot {
namespace {

namespace fs = std::filesystem;

struct Ran {
  int code = -1;
  std::string out;  // standard output; with "2>&1" both
};

// `arguments` go through the shell; standard input is empty unless they say otherwise.
Ran RunBinary(const std::string& arguments, const std::string& before = "") {
  const bool has_input = arguments.find('<') != std::string::npos || !before.empty();
  const std::string command = StrCat(before, " timeout 600 ", CACHALOT_BINARY, " ", arguments,
                                     has_input ? "" : " </dev/null");
  Ran ran;
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return ran;
  char buffer[4096];
  for (size_t n = 0; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) {
    ran.out.append(buffer, n);
  }
  const int status = ::pclose(pipe);
  ran.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ran;
}

// A folder of its own, removed at the end.
class CliTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "cachalot_cli_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override {
    std::error_code ec;
    fs::remove_all(folder_, ec);
  }
  std::string Write(const std::string& name, const std::string& text) const {
    const std::string path = (folder_ / name).string();
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }

  // models/mini without the file that says it can chat: it goes on for as long as it may.
  std::string ProseModel() const {
    const fs::path model = folder_ / "prose";
    fs::create_directory(model);
    for (const auto& entry : fs::directory_iterator(CACHALOT_SOURCE_DIR "/models/mini")) {
      if (entry.path().filename() == "generation_config.json") continue;
      fs::create_symlink(entry.path(), model / entry.path().filename());
    }
    return model;
  }

  fs::path folder_;
};

bool IsOneErrorLine(const std::string& text) {
  return text.starts_with("cachalot: ") && text.find('\n') == text.size() - 1;
}

TEST_F(CliTest, AloneItPrintsHelpWithExamples) {
  const Ran ran = RunBinary("");
  EXPECT_EQ(ran.code, 0);
  EXPECT_NE(ran.out.find("Examples:"), std::string::npos);
}

TEST_F(CliTest, VersionNamesTheProgram) {
  const Ran ran = RunBinary("--version");
  EXPECT_EQ(ran.code, 0);
  EXPECT_TRUE(ran.out.starts_with("cachalot ")) << ran.out;
}

TEST_F(CliTest, PinnedThreadsWriteTheSame) {
  const std::string run = "run -p 'She was' -n 8 --seed 3 --threads 2 --pin ";
  const Ran pinned = RunBinary(run + "on");
  EXPECT_EQ(pinned.code, 0);
  EXPECT_FALSE(pinned.out.empty());
  EXPECT_EQ(pinned.out, RunBinary(run + "off").out);
}

TEST_F(CliTest, EveryCommandHasHelpWithExamples) {
  for (const char* command : {"run", "chat", "perplexity", "logits"}) {
    const Ran ran = RunBinary(StrCat(command, " --help"));
    EXPECT_EQ(ran.code, 0) << command;
    EXPECT_NE(ran.out.find("Examples:"), std::string::npos) << command;
  }
}

TEST_F(CliTest, WrongUsageIsOneLineAndTwo) {
  for (const char* arguments :
       {"nonsense", "run --no-such-flag", "run --numerics wrong", "run -p a -f b", "logits",
        "run --threads 0", "run --threads x", "perplexity", "run --think high"}) {
    const Ran ran = RunBinary(StrCat(arguments, " 2>&1"));
    EXPECT_EQ(ran.code, 2) << arguments << ": " << ran.out;
    EXPECT_TRUE(IsOneErrorLine(ran.out)) << ran.out;
  }
}

TEST_F(CliTest, WithoutAPromptRunCompletesTheDefaultOne) {
  const Ran ran = RunBinary("run -n 8 --seed 1");
  EXPECT_EQ(ran.code, 0);
  EXPECT_TRUE(ran.out.starts_with("It is a truth universally acknowledged")) << ran.out;
  EXPECT_TRUE(ran.out.ends_with("\n"));
}

TEST_F(CliTest, TheSameSeedGivesTheSameText) {
  const std::string arguments = "run -p \"She was\" -n 24 --json --seed ";
  const auto a = ParseJson(RunBinary(arguments + "5").out, "a");
  const auto b = ParseJson(RunBinary(arguments + "5 --chunk 1 --threads 1").out, "b");
  const auto c = ParseJson(RunBinary(arguments + "6").out, "c");
  ASSERT_TRUE(a.ok() && b.ok() && c.ok());
  EXPECT_EQ((*a)["ids"], (*b)["ids"]);
  EXPECT_NE((*a)["ids"], (*c)["ids"]);
}

TEST_F(CliTest, RunJsonCountsItsTokens) {
  const auto json =
      ParseJson(RunBinary("run -p \"Mr. Darcy\" -n 12 --ignore-eos --json").out, "out");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["usage"]["completion_tokens"], 12);
  EXPECT_EQ((*json)["ids"].size(), 12u);
  EXPECT_EQ((*json)["finish_reason"], "length");
  EXPECT_TRUE((*json)["timings"].contains("prefill_s"));
}

// 40 MB of address space hold the program but not its scratch. Sanitizers reserve terabytes.
TEST_F(CliTest, WithoutMemoryItSaysSoInOneLine) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer needs more address space than any limit";
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  GTEST_SKIP() << "a sanitizer needs more address space than any limit";
#endif
#endif
  const Ran ran = RunBinary("run -p Once -n 4 2>&1", "ulimit -v 40000;");
  EXPECT_NE(ran.code, 0);
  EXPECT_TRUE(IsOneErrorLine(ran.out)) << ran.out;
}

TEST_F(CliTest, StopStringsEndTheTextBeforeThem) {
  const auto whole = ParseJson(RunBinary("run -p \"She was\" -n 40 --seed 3 --json").out, "whole");
  ASSERT_TRUE(whole.ok());
  const auto text = (*whole)["text"].get<std::string>();
  ASSERT_GT(text.size(), 12u);
  const std::string stop = text.substr(6, 4);
  const std::string path = Write("stop", stop);
  const auto cut = ParseJson(
      RunBinary(StrCat("run -p \"She was\" -n 40 --seed 3 --json --stop \"$(cat ", path, ")\""))
          .out,
      "cut");
  ASSERT_TRUE(cut.ok());
  EXPECT_EQ((*cut)["text"], text.substr(0, text.find(stop)));
  EXPECT_EQ((*cut)["finish_reason"], "stop");
}

TEST_F(CliTest, RunReadsPipesFilesAndBytesThatAreNoUtf8) {
  EXPECT_EQ(RunBinary("run -n 2", "printf 'I am' |").code, 0);
  EXPECT_EQ(RunBinary(StrCat("run -n 2 -f ", Write("p", "I \xff\xfe am"))).code, 0);
}

TEST_F(CliTest, PromptBeyondTheContextNamesTheFiguresAndTheRemedy) {
  const std::string path = Write("long", std::string(4000, 'x') + " and so on");
  const Ran ran = RunBinary(StrCat("run --max-context 16 -f ", path, " 2>&1"));
  EXPECT_EQ(ran.code, ExitCode(ErrorCode::kResourceExhausted)) << ran.out;
  EXPECT_TRUE(IsOneErrorLine(ran.out)) << ran.out;
  EXPECT_NE(ran.out.find("16"), std::string::npos) << ran.out;
  EXPECT_NE(ran.out.find("context"), std::string::npos) << ran.out;
}

TEST_F(CliTest, MissingModelNamesThePlacesLookedAt) {
  const Ran ran = RunBinary("run -m no-such-model -p a 2>&1");
  EXPECT_EQ(ran.code, ExitCode(ErrorCode::kNotFound));
  EXPECT_NE(ran.out.find("no-such-model"), std::string::npos);
}

TEST_F(CliTest, LogitsWritesOneRowForEachId) {
  const std::string ids = Write("ids", "5 6 7 8 9\n");
  const std::string next = Write("next", "6 7 8 9 10");
  const std::string out = (folder_ / "out.safetensors").string();
  const Ran ran = RunBinary(StrCat("logits --ids ", ids, " --mtp-next ", next,
                                   " --hidden --chunk 2 --out ", out, " 2>&1"));
  ASSERT_EQ(ran.code, 0) << ran.out;
  const auto bytes = io::ReadFile(out, 1 << 20);
  ASSERT_TRUE(bytes.ok());
  const auto header = ParseJson(std::string_view(*bytes).substr(8, bytes->find("}}") + 2 - 8), out);
  ASSERT_TRUE(header.ok()) << header.error().message;
  EXPECT_EQ((*header)["logits"]["shape"], Json::array({5, 2048}));
  EXPECT_EQ((*header)["mtp_logits"]["shape"], Json::array({5, 2048}));
  EXPECT_EQ((*header)["hidden"]["shape"], Json::array({5, 256}));
}

TEST_F(CliTest, LogitsRefusesBadIdsAndPlaces) {
  const std::string out = (folder_ / "out").string();
  const auto run = [&](const std::string& ids, const std::string& more) {
    return RunBinary(StrCat("logits --ids ", Write("ids", ids), " ", more, " 2>&1"));
  };
  EXPECT_EQ(run("", "--out " + out).code, 1);
  EXPECT_EQ(run("1 2048", "--out " + out).code, 1);
  EXPECT_EQ(run("1 2", StrCat("--out ", out, " --mtp-next ", Write("one", "1"))).code, 1);
  EXPECT_EQ(run("1 2", "--out /nonexistent/out").code, ExitCode(ErrorCode::kIo));
  EXPECT_FALSE(fs::exists(out));
}

TEST_F(CliTest, PerplexityJsonHasItsFields) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "It was a fine morning, and she walked to the village. ";
  const Ran ran = RunBinary(StrCat("perplexity --window 64 --json ", Write("text", text)));
  ASSERT_EQ(ran.code, 0);
  const auto json = ParseJson(ran.out, "out");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["window"], 64);
  EXPECT_EQ((*json)["numerics"], "fast");
  EXPECT_EQ((*json)["tokens"].get<int>() % 64, 0);
  EXPECT_GT((*json)["perplexity"].get<double>(), 1.0);
}

TEST_F(CliTest, PerplexityOfTooLittleTextSaysWhatItNeeds) {
  const Ran ran = RunBinary(StrCat("perplexity ", Write("text", "Short."), " 2>&1"));
  EXPECT_EQ(ran.code, 1);
  EXPECT_NE(ran.out.find("--window"), std::string::npos);
}

// Of a model that another implementation trained and measured in `reference` (its README); the
// issue allows 1 %.
TEST_F(CliTest, PerplexityOfHeldOutTextIsWithinOnePercent) {
  const std::string model = CACHALOT_SOURCE_DIR "/../shared/models/mini";
  if (!fs::exists(model)) {
    std::fprintf(stderr, "*** SKIPPED: %s is not there; perplexity is unchecked ***\n",
                 model.c_str());
    GTEST_SKIP();
  }
  const Ran ran =
      RunBinary(StrCat("perplexity --window 512 --json -m ", model, " ", model, "/heldout.txt"));
  ASSERT_EQ(ran.code, 0);
  const auto json = ParseJson(ran.out, "out");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["tokens"], 39424);
  EXPECT_NEAR((*json)["perplexity"].get<double>(), 48.3094, 0.01 * 48.3094);
}

// Four held-out items of each skill; look-ups count twice, with and without compressed entries. Of
// all 650 the model has 98 % or more of each (models/mini/README.md).
TEST_F(CliTest, EvalMiniScoresTheTasksBesideTheModel) {
  const Ran ran = RunBinary("eval mini --limit 4 --json");
  ASSERT_EQ(ran.code, 0);
  const auto json = ParseJson(ran.out, "out");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["numerics"], "fast");
  std::vector<std::string> skills;
  for (const Json& row : (*json)["skills"]) {
    skills.push_back(row["skill"].get<std::string>());
    EXPECT_EQ(row["items"], 4);
    EXPECT_EQ(row["share"].get<double>(), row["right"].get<double>() / 4);
    const bool can = skills.back() != "look-up, window only";
    EXPECT_TRUE(can ? row["right"] >= 3 : row["right"] == 0) << skills.back() << row["right"];
    if (skills.back().starts_with("look-up")) {
      EXPECT_GE(row["min_tokens_back"], 2000);
      EXPECT_LE(row["max_tokens_back"], 4096);
    }
  }
  EXPECT_EQ(skills,
            (std::vector<std::string>{"copying", "sorting", "counting", "addition", "subtraction",
                                      "calculator call", "look-up", "look-up, window only"}));
}

// An answer counts only whole: of two that begin alike, one that ends early, at most one is right.
TEST_F(CliTest, EvalMiniTakesItemsOfItsOwn) {
  std::string items;
  for (const char* answer : {"fish book lamp", "fish book"}) {
    items += StrCat(
        R"({"skill": "echo", "thinking_mode": "chat", "messages": [{"role": "user", "content": )"
        R"("Repeat: fish book lamp"}, {"role": "assistant", "content": ")",
        answer, "\"}]}\n");
  }
  const std::string path = Write("items.jsonl", items);
  const Ran ran = RunBinary(StrCat("eval mini --json --items ", path));
  ASSERT_EQ(ran.code, 0);
  const auto json = ParseJson(ran.out, "out");
  ASSERT_TRUE(json.ok());
  ASSERT_EQ((*json)["skills"].size(), 1u);
  EXPECT_EQ((*json)["skills"][0]["items"], 2);
  EXPECT_LE((*json)["skills"][0]["right"].get<int>(), 1);
  const Ran table = RunBinary(StrCat("eval mini --items ", path));
  EXPECT_NE(table.out.find("echo"), std::string::npos) << table.out;
}

TEST_F(CliTest, EvalMiniNamesTheBadLine) {
  for (const char* text : {"{}\n", "[1]\n", "{\"skill\": \"x\"}\n"}) {
    const Ran ran = RunBinary(StrCat("eval mini --items ", Write("bad.jsonl", text), " 2>&1"));
    EXPECT_EQ(ran.code, 1) << text;
    EXPECT_TRUE(IsOneErrorLine(ran.out)) << ran.out;
    EXPECT_NE(ran.out.find("bad.jsonl:1"), std::string::npos) << ran.out;
  }
  const Ran ran = RunBinary(StrCat("eval mini --items ", Write("none.jsonl", ""), " 2>&1"));
  EXPECT_EQ(ran.code, 1);
  EXPECT_NE(ran.out.find("has no items"), std::string::npos) << ran.out;
}

TEST_F(CliTest, ChatReadsCommandsFromAPipe) {
  const std::string saved = (folder_ / "talk.json").string();
  const Ran ran = RunBinary(StrCat("chat -n 8 --seed 1 -m ", ProseModel(), " 2>&1"),
                            StrCat("printf 'She was\\n/save ", saved, "\\n/quit\\n' |"));
  EXPECT_EQ(ran.code, 0) << ran.out;
  EXPECT_NE(ran.out.find("not trained to chat"), std::string::npos) << ran.out;
  const auto text = io::ReadFile(saved, 1 << 20);
  ASSERT_TRUE(text.ok());
  const auto json = ParseJson(*text, saved);
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["messages"].size(), 2u);
}

// The model in the repository does what it was trained for, in the chat format.
TEST_F(CliTest, MiniAnswersInAChat) {
  const Ran ran =
      RunBinary("chat -n 20 --temperature 0 2>&1",
                "printf 'Repeat: fish book lamp\\n/clear\\nSort: 7 2 9 4\\n/clear\\n17 + 25\\n' |");
  EXPECT_EQ(ran.code, 0) << ran.out;
  for (const char* answer : {"fish book lamp\n", "2 4 7 9\n", "42\n"}) {
    EXPECT_NE(ran.out.find(answer), std::string::npos) << answer << ran.out;
  }
}

TEST_F(CliTest, ChatFromAPipeFailsOnTheFirstBadCommand) {
  EXPECT_EQ(RunBinary("chat 2>&1", "printf '/nonsense\\n' |").code, 1);
}

// The binary on a pseudo-terminal.
class Terminal {
 public:
  // A chat with `model`, of up to 4,000 tokens an answer.
  Terminal(const fs::path& home, const std::string& model) {
    pid_ = ::forkpty(&fd_, nullptr, nullptr, nullptr);
    if (pid_ != 0) return;
    ::setenv("XDG_STATE_HOME", home.c_str(), 1);
    ::setenv("TERM", "xterm", 1);
    ::signal(SIGINT, SIG_DFL);  // a test run started in the background inherits it ignored
    ::execl(CACHALOT_BINARY, CACHALOT_BINARY, "chat", "-m", model.c_str(), "-n", "4000", "--seed",
            "1", nullptr);
    ::_exit(127);
  }
  ~Terminal() {
    if (!exited_) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    ::close(fd_);
  }

  void Type(const std::string& text) {
    ASSERT_EQ(::write(fd_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  // Reads until `wanted` has been shown since the last call; false after a minute of silence.
  bool Expect(const std::string& wanted) {
    while (seen_.find(wanted) == std::string::npos) {
      pollfd poll{.fd = fd_, .events = POLLIN, .revents = 0};
      char buffer[1024];
      if (::poll(&poll, 1, 60000) <= 0) return false;
      const ssize_t n = ::read(fd_, buffer, sizeof(buffer));
      ended_ = n <= 0;
      if (ended_) return false;
      seen_.append(buffer, static_cast<size_t>(n));
    }
    seen_.erase(0, seen_.find(wanted) + wanted.size());
    return true;
  }
  // Reads until the editor waits for a key. It shows its prompt before it takes the terminal over:
  // what is typed in between is echoed twice and the answer seems to have begun.
  bool ExpectPrompt() {
    if (!Expect("\n> ")) return false;  // not "> ": the help text has that too
    for (int i = 0; i < 6000; ++i) {
      termios mode{};
      if (::tcgetattr(fd_, &mode) == 0 && (mode.c_lflag & ICANON) == 0) return true;
      ::usleep(10000);
    }
    return false;
  }
  // The exit code; -1 if a minute of silence passes first.
  int Wait() {
    int status = 0;
    if (Expect("\x04 never printed: read to the end") || !ended_) return -1;
    ::waitpid(pid_, &status, 0);
    exited_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  const std::string& seen() const { return seen_; }

 private:
  pid_t pid_ = -1;
  int fd_ = -1;
  bool ended_ = false;   // the program has closed the terminal
  bool exited_ = false;  // and was waited for
  std::string seen_;
};

TEST_F(CliTest, CtrlCStopsTheAnswerAndTwiceAtTheEmptyPromptLeaves) {
  Terminal terminal(folder_, ProseModel());
  ASSERT_TRUE(terminal.ExpectPrompt()) << terminal.seen();
  terminal.Type("/help\r");
  ASSERT_TRUE(terminal.Expect("/system")) << terminal.seen();
  ASSERT_TRUE(terminal.ExpectPrompt());
  terminal.Type("She was the youngest\r");
  ASSERT_TRUE(terminal.Expect("youngest\r\n")) << terminal.seen();
  ASSERT_TRUE(terminal.Expect(" ")) << terminal.seen();  // the answer has begun
  terminal.Type("\x03");
  ASSERT_TRUE(terminal.Expect("(stopped)")) << terminal.seen();
  ASSERT_TRUE(terminal.ExpectPrompt());
  terminal.Type("\x03");
  ASSERT_TRUE(terminal.Expect("again")) << terminal.seen();
  ASSERT_TRUE(terminal.ExpectPrompt());
  terminal.Type("\x03");
  EXPECT_EQ(terminal.Wait(), 0) << terminal.seen();
  EXPECT_TRUE(fs::exists(folder_ / "cachalot" / "chat_history"));
}

}  // namespace
}  // namespace cachalot
