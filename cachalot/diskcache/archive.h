// SPDX-License-Identifier: Apache-2.0
// Records outside a store: verified one by one, written to a file and taken from one.
// [docs/formats/disk-cache.md, Export]
#pragma once

#include <cstdint>
#include <string>

#include "cachalot/base/error.h"
#include "cachalot/diskcache/store.h"

namespace cachalot::diskcache {

// Reads the record and holds it against its own checksum, its key and the index. Reads it all.
Status VerifyRecord(Store& store, const IndexRow& row);

// Writes every record that verifies to `path`, parents first; the number of records. The file is
// there whole or not at all.
Result<uint64_t> ExportRecords(Store& store, const std::string& path);

// Queues and flushes every record of the file; the number taken. kDataCorruption at the first that
// is none; what came before stays. A file says what KV state is, so take only those of somebody
// you would take weights from.
Result<uint64_t> ImportRecords(Store& store, const std::string& path);

}  // namespace cachalot::diskcache
