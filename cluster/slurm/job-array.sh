#!/bin/bash
# Order the array and, after it, one job that does what is left: tiles of an element that was killed, products, report.
#   bash job-array.sh array-job.yaml [further options for sbatch, as --partition=cpu]
set -euo pipefail

job=${1:?usage: bash job-array.sh JOB [options for sbatch]}
shift
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

array=$(sbatch --parsable "$@" "$here/job-array.sbatch" "$job")
array=${array%%;*}
# afterany, not afterok: an element that ends with code 3 has listed failed tiles, and these are tried again here.
last=$(sbatch --parsable "$@" --dependency="afterany:$array" "$here/finish.sbatch" "$job")
echo "array $array, then ${last%%;*}"
