// SPDX-License-Identifier: Apache-2.0
// Writes tokenizer.json files in V4's format, whatever their merges. [chat.md 2.1-2.3]
//
//   ids 0..2               BOS, EOS, padding
//   3..258                 the 256 bytes, in V4's order
//   259..                  the product of each merge, in order
//   the last ones          the other special tokens a model of this size has use for: fill in the
//                          middle, turns, thinking, DSML, tasks
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>

namespace cachalot::tokenizer {

using BytePair = std::pair<std::string, std::string>;  // the bytes of left and right

// Entries without any merge.
uint32_t MinV4Vocab();

// The file's text, of MinV4Vocab() + merges.size() entries. Each side of a merge is a byte or the
// product of one before, and no two merges have the same product.
std::string V4TokenizerJson(std::span<const BytePair> merges);

}  // namespace cachalot::tokenizer
