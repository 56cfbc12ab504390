# SPDX-License-Identifier: Apache-2.0
# cmake -DSOURCE_DIR=... -DOUTPUT=... -P WriteCommit.cmake
# Writes a header with the commit that is being built; touches it only when that changed.
execute_process(COMMAND git describe --always --dirty --exclude=* --abbrev=9
                WORKING_DIRECTORY ${SOURCE_DIR} OUTPUT_VARIABLE commit ERROR_QUIET
                OUTPUT_STRIP_TRAILING_WHITESPACE)
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#define CACHALOT_COMMIT \"${commit}\"\n")
