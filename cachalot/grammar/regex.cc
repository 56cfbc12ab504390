// SPDX-License-Identifier: Apache-2.0
#include "cachalot/grammar/regex.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "cachalot/base/strings.h"
#include "cachalot/grammar/regex_parser.h"

namespace cachalot::grammar {
namespace {

using Kind = RegexNode::Kind;

// With empty edges, some of which hold at an end of the text only.
struct Graph {
  enum class When : uint8_t { kAlways, kAtBegin, kAtEnd };
  struct Empty {
    uint32_t to = 0;
    When when = When::kAlways;
  };
  struct Node {
    std::vector<Empty> empty;
    CharSet set;  // reads one of these and goes to `next`
    uint32_t next = 0;
  };
  std::vector<Node> nodes;

  uint32_t Add() {
    nodes.emplace_back();
    return static_cast<uint32_t>(nodes.size() - 1);
  }
};

class Builder {
 public:
  // From `begin` to the state it returns. No state that was returned has edges yet.
  Result<uint32_t> Build(const RegexNode& node, uint32_t begin) {
    // Calls are counted too: a repetition of nothing adds no states.
    if (graph_.nodes.size() > TextAutomaton::kMaxStates || ++num_calls_ > kMaxCalls) {
      return Error{ErrorCode::kUnsupported, "the expression is too large"};
    }
    switch (node.kind) {
      case Kind::kSet: {
        const uint32_t end = graph_.Add();
        graph_.nodes[begin].set = node.set;
        graph_.nodes[begin].next = end;
        return end;
      }
      case Kind::kBegin:
        return Link(begin, Graph::When::kAtBegin);
      case Kind::kEnd:
        return Link(begin, Graph::When::kAtEnd);
      case Kind::kSequence: {
        for (const RegexNode& part : node.parts) {
          CACHALOT_TRY(begin, Build(part, begin));
        }
        return begin;
      }
      case Kind::kChoice: {
        const uint32_t end = graph_.Add();
        for (const RegexNode& part : node.parts) {
          CACHALOT_TRY(const uint32_t last, Build(part, Link(begin)));
          graph_.nodes[last].empty.push_back({end});
        }
        return end;
      }
      case Kind::kRepeat:
        return Repeat(node, begin);
    }
    return begin;
  }

  Graph graph_;

 private:
  static constexpr size_t kMaxCalls = 1'000'000;

  uint32_t Link(uint32_t from, Graph::When when = Graph::When::kAlways) {
    const uint32_t to = graph_.Add();
    graph_.nodes[from].empty.push_back({to, when});
    return to;
  }

  Result<uint32_t> Repeat(const RegexNode& node, uint32_t begin) {
    const RegexNode& body = node.parts[0];
    for (uint32_t i = 0; i < node.least; ++i) {
      CACHALOT_TRY(begin, Build(body, begin));
    }
    if (node.most == RegexNode::kUnbounded) {
      const uint32_t loop = Link(begin);
      CACHALOT_TRY(const uint32_t last, Build(body, Link(loop)));
      graph_.nodes[last].empty.push_back({loop});
      return Link(loop);
    }
    std::vector<uint32_t> leave;  // before each of those that may be left out
    for (uint32_t i = node.least; i < node.most; ++i) {
      leave.push_back(begin);
      CACHALOT_TRY(begin, Build(body, Link(begin)));
    }
    const uint32_t end = Link(begin);
    for (const uint32_t from : leave) graph_.nodes[from].empty.push_back({end});
    return end;
  }

  size_t num_calls_ = 0;
};

// States reached without reading, in the order found.
std::vector<uint32_t> Closure(const Graph& graph, uint32_t from, bool at_begin, bool at_end) {
  std::vector<uint32_t> reached = {from};
  std::vector<bool> seen(graph.nodes.size());
  seen[from] = true;
  for (size_t i = 0; i < reached.size(); ++i) {
    for (const Graph::Empty& edge : graph.nodes[reached[i]].empty) {
      if (edge.when == Graph::When::kAtBegin && !at_begin) continue;
      if (edge.when == Graph::When::kAtEnd && !at_end) continue;
      if (seen[edge.to]) continue;
      seen[edge.to] = true;
      reached.push_back(edge.to);
    }
  }
  return reached;
}

// Without the empty edges: what is kept are the beginning and the states a character leads to.
class Flattener {
 public:
  Flattener(const Graph& graph, uint32_t found) : graph_(graph), found_(found) {}

  Result<TextAutomaton> Flatten(uint32_t begin) {
    // The beginning is apart, since a text may lead back to its state but not to the text's begin.
    Visit(graph_.nodes.size());
    size_t num_edges = 0;
    for (uint32_t i = 0; i < order_.size(); ++i) {
      const bool at_begin = i == 0;
      const uint32_t node = at_begin ? begin : static_cast<uint32_t>(order_[i]);
      for (const uint32_t reached : Closure(graph_, node, at_begin, /*at_end=*/false)) {
        const Graph::Node& from = graph_.nodes[reached];
        if (from.set.empty()) continue;
        const uint32_t to = Visit(from.next);
        for (const CharRange& range : from.set.ranges()) {
          out_.states[i].edges.push_back({range.low, range.high, to});
        }
        num_edges += from.set.ranges().size();
      }
      const auto ends = Closure(graph_, node, at_begin, /*at_end=*/true);
      out_.states[i].accepts = std::ranges::find(ends, found_) != ends.end();
      work_ += ends.size();
      if (num_edges > TextAutomaton::kMaxEdges || work_ > kMaxWork) {
        return Error{ErrorCode::kUnsupported, "the expression is too large"};
      }
    }
    Prune(out_);
    return std::move(out_);
  }

 private:
  static constexpr size_t kMaxWork = 5'000'000;

  uint32_t Visit(size_t node) {
    if (ids_.empty()) ids_.assign(graph_.nodes.size() + 1, UINT32_MAX);
    if (ids_[node] == UINT32_MAX) {
      ids_[node] = out_.AddState(false);
      order_.push_back(node);
    }
    return ids_[node];
  }

  const Graph& graph_;
  const uint32_t found_;
  TextAutomaton out_;
  std::vector<uint32_t> ids_;
  std::vector<size_t> order_;
  size_t work_ = 0;
};

}  // namespace

Result<TextAutomaton> CompileRegex(std::string_view pattern) {
  CACHALOT_TRY(const RegexNode tree, ParseRegex(pattern));
  // Any text, the match, any text.
  const RegexNode any{.kind = Kind::kSet, .set = CharSet::All(), .parts = {}};
  RegexNode anything{
      .kind = Kind::kRepeat, .set = {}, .parts = {any}, .least = 0, .most = RegexNode::kUnbounded};
  RegexNode whole{.kind = Kind::kSequence, .set = {}, .parts = {anything, tree, anything}};
  Builder builder;
  const uint32_t begin = builder.graph_.Add();
  CACHALOT_TRY(const uint32_t found, builder.Build(whole, begin));
  return Flattener(builder.graph_, found).Flatten(begin);
}

}  // namespace cachalot::grammar
