// SPDX-License-Identifier: Apache-2.0
// Headers that most files include and that are long to parse, precompiled where CACHALOT_PCH asks
// for it. Never included by a source: each includes what it uses, as the presets without it show.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>
