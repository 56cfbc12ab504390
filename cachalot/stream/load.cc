// SPDX-License-Identifier: Apache-2.0
#include "cachalot/stream/load.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"

namespace cachalot::stream {
namespace {

using model::ExpertWeights;
using model::LayerWeights;
using model::Weights;

uint64_t ScaleBytes(const WeightView& w) {
  const auto blocks = [](uint64_t n) { return (n + kFP8Block - 1) / kFP8Block; };
  if (w.kind == WeightKind::kFP4) {
    return uint64_t{w.rows} * (w.cols / kFP4Block) * DTypeBytes(w.scale_dtype);
  }
  if (w.kind == WeightKind::kFP8) {
    return blocks(w.rows) * blocks(w.cols) * DTypeBytes(w.scale_dtype);
  }
  return 0;
}

// Pointers of views and how many bytes are behind each, in the order of the views.
struct Pointers {
  std::vector<const uint8_t**> at;
  std::vector<uint64_t> bytes;

  void Add(WeightView& w) {
    Add(w.data, uint64_t{w.rows} * w.row_bytes());
    Add(w.scales, ScaleBytes(w));
  }

 private:
  void Add(const uint8_t*& pointer, uint64_t size) {
    if (pointer == nullptr || size == 0) return;
    at.push_back(&pointer);
    bytes.push_back(size);
  }
};

void AddExpert(ExpertWeights& w, Pointers& out) {
  for (WeightView* view : {&w.w1, &w.w3, &w.w2}) out.Add(*view);
}

void AddCompressor(model::CompressorWeights& w, Pointers& out) {
  out.Add(w.wkv);
  out.Add(w.wgate);
}

void AddLayer(LayerWeights& layer, Pointers& out) {
  for (WeightView* w : {&layer.hc_attn.fn, &layer.hc_ffn.fn, &layer.attn.wq_a, &layer.attn.wq_b,
                        &layer.attn.wkv, &layer.attn.wo_a, &layer.attn.wo_b, &layer.ffn.gate}) {
    out.Add(*w);
  }
  AddExpert(layer.ffn.shared, out);
  if (layer.attn.compressor) AddCompressor(*layer.attn.compressor, out);
  if (!layer.attn.indexer) return;
  out.Add(layer.attn.indexer->wq_b);
  out.Add(layer.attn.indexer->weights_proj);
  AddCompressor(layer.attn.indexer->compressor, out);
}

Pointers DenseMatrices(Weights& weights) {
  Pointers out;
  out.Add(weights.embed);
  out.Add(weights.head);
  out.Add(weights.hc_head.fn);
  for (LayerWeights& layer : weights.layers) AddLayer(layer, out);
  if (weights.mtp) {
    AddLayer(weights.mtp->layer, out);
    for (WeightView* w : {&weights.mtp->e_proj, &weights.mtp->h_proj, &weights.mtp->hc_head.fn}) {
      out.Add(*w);
    }
  }
  return out;
}

// All layers that have experts: the main ones, then the MTP block.
std::vector<LayerWeights*> ExpertLayers(Weights& weights) {
  std::vector<LayerWeights*> layers;
  for (LayerWeights& layer : weights.layers) layers.push_back(&layer);
  if (weights.mtp) layers.push_back(&weights.mtp->layer);
  return layers;
}

std::vector<FileRange> RangesOf(const Pointers& pointers, const checkpoint::Checkpoint& files) {
  std::vector<FileRange> ranges;
  for (size_t i = 0; i < pointers.at.size(); ++i) {
    const auto place = files.Locate(*pointers.at[i]);
    ranges.push_back({place.shard, place.offset, place.offset + pointers.bytes[i]});
  }
  return ranges;
}

// Where the expert is on disk. Its views lose their bytes: they are in a slot, or nowhere.
ExpertPlace PlaceExpert(ExpertWeights& expert, const checkpoint::Checkpoint& files) {
  Pointers pointers;
  AddExpert(expert, pointers);
  ReadLayout layout = PlanReads(RangesOf(pointers, files));
  ExpertPlace place{.runs = std::move(layout.runs), .format = expert};
  size_t next = 0;
  size_t tensor = 0;
  for (WeightView* view : {&expert.w1, &expert.w3, &expert.w2}) {
    place.tensors[tensor] = layout.places[next++];
    if (view->scales != nullptr) place.tensors[tensor + 1] = layout.places[next++];
    tensor += 2;
    view->data = nullptr;
    view->scales = nullptr;
  }
  return place;
}

Result<std::vector<FileCopies>> OpenFiles(const checkpoint::Checkpoint& files,
                                          const std::string& mirror_dir) {
  std::vector<FileCopies> out(files.num_shards());
  for (uint32_t i = 0; i < out.size(); ++i) {
    const std::string& path = files.shard_path(i);
    CACHALOT_TRY(io::DirectFile file, io::DirectFile::Open(path));
    out[i].copies.push_back(std::move(file));
    if (mirror_dir.empty()) continue;
    const auto name = std::filesystem::path(path).filename();
    CACHALOT_TRY(io::DirectFile mirror,
                 io::DirectFile::Open((std::filesystem::path(mirror_dir) / name).string()));
    if (mirror.size() != out[i].copies[0].size()) {
      return Error{ErrorCode::kInvalidArgument,
                   StrCat(mirror.path(), ": ", mirror.size(), " bytes, ", path, " has ",
                          out[i].copies[0].size(), "; --weights-mirror needs the same files")};
    }
    out[i].copies.push_back(std::move(mirror));
  }
  return out;
}

// Reads the dense matrices and lets their views point at the copies.
Result<PageMemory> ReadDense(Weights& weights, const StreamOptions& options) {
  const Pointers pointers = DenseMatrices(weights);
  const ReadLayout layout = PlanReads(RangesOf(pointers, *weights.storage));
  CACHALOT_TRY(PageMemory memory, PageMemory::Allocate(layout.bytes));
  CACHALOT_TRY(std::vector<FileCopies> files, OpenFiles(*weights.storage, options.mirror_dir));
  const auto num_runs = static_cast<uint32_t>(layout.runs.size());
  PieceReader reader(std::move(files), num_runs, options.cache.reader);
  for (uint32_t i = 0; i < num_runs; ++i) {
    reader.Start(i, std::span(layout.runs).subspan(i, 1), memory.data(),
                 PieceReader::Urgency::kDemand);
  }
  for (uint32_t i = 0; i < num_runs; ++i) {
    const auto finished = reader.Poll(/*wait=*/true);
    CACHALOT_CHECK(finished.has_value());
    if (finished->error) return *finished->error;
    if (options.progress && !options.progress(layout.runs[finished->batch].bytes())) {
      return Error{ErrorCode::kCancelled, "stopped"};
    }
  }
  for (size_t i = 0; i < pointers.at.size(); ++i) {
    *pointers.at[i] = memory.data() + layout.places[i];
  }
  return memory;
}

uint64_t SmallBytes(Weights& weights) {
  // Names, shapes and index entries of tensors as Checkpoint keeps them, and an expert's places.
  constexpr uint64_t kBytesATensor = 400;
  constexpr uint64_t kBytesAnExpert = 500;
  uint64_t bytes = weights.storage->tensors().size() * kBytesATensor;
  for (const LayerWeights* layer : ExpertLayers(weights)) {
    // The mapped weights' and the streamed ones' while both exist.
    bytes += 2 * layer->ffn.tid2eid.size() * sizeof(uint32_t);
    bytes += layer->ffn.experts.size() * (kBytesAnExpert + 3 * sizeof(ExpertWeights));
  }
  return bytes;
}

}  // namespace

StreamSizes MeasureStream(const Weights& mapped) {
  Weights weights = mapped;
  StreamSizes sizes;
  sizes.small_bytes = SmallBytes(weights);
  sizes.dense_bytes = PlanReads(RangesOf(DenseMatrices(weights), *weights.storage)).bytes;
  for (LayerWeights* layer : ExpertLayers(weights)) {
    ++sizes.num_layers;
    for (ExpertWeights& expert : layer->ffn.experts) {
      const ExpertPlace place = PlaceExpert(expert, *weights.storage);
      const Run& last = place.runs.back();
      sizes.slot_bytes = std::max(sizes.slot_bytes, last.at + last.bytes());
      ++sizes.num_experts;
    }
  }
  return sizes;
}

Result<std::shared_ptr<const Weights>> StreamWeights(const Weights& mapped,
                                                     const StreamOptions& options) {
  if (mapped.storage == nullptr || mapped.config.n_routed_experts == 0) {
    return Error{ErrorCode::kUnsupported,
                 "only experts of a checkpoint on disk can be streamed; leave out --memory"};
  }
  auto weights = std::make_shared<Weights>(mapped);
  CACHALOT_TRY(PageMemory dense, ReadDense(*weights, options));
  std::vector<ExpertPlace> places;
  for (LayerWeights* layer : ExpertLayers(*weights)) {
    for (ExpertWeights& expert : layer->ffn.experts) {
      places.push_back(PlaceExpert(expert, *weights->storage));
    }
  }
  CACHALOT_TRY(std::vector<FileCopies> files, OpenFiles(*weights->storage, options.mirror_dir));
  CACHALOT_TRY(auto cache, ExpertCache::Create(std::move(places), mapped.config.n_routed_experts,
                                               std::move(files), options.cache));
  weights->expert_source = std::move(cache);
  weights->resident = std::make_shared<PageMemory>(std::move(dense));
  weights->storage->DropPages();
  return std::shared_ptr<const Weights>(std::move(weights));
}

ExpertCache* CacheOf(const Weights& weights) {
  return dynamic_cast<ExpertCache*>(weights.expert_source.get());
}

}  // namespace cachalot::stream
