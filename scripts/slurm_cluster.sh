#!/bin/sh
# Run a command on a SLURM cluster of one node that lives as long as the command:
#   scripts/slurm_cluster.sh run COMMAND [ARGUMENT...]
# Debian's slurm-wlm and munge are installed if they are missing; that and the daemons need root. Everything that the
# cluster writes is in a folder of its own, which goes with it; the system's own SLURM and munge are not touched.
set -eu

[ "${1:-}" = run ] && [ $# -ge 2 ] || { echo "usage: $0 run COMMAND [ARGUMENT...]" >&2; exit 2; }
shift
[ "$(id -u)" = 0 ] || { echo "$0: a SLURM of our own needs root" >&2; exit 1; }
missing=""
for program in slurmctld slurmd munged; do command -v "$program" >/dev/null || missing="$missing $program"; done
if [ -n "$missing" ]; then
  command -v apt-get >/dev/null || { echo "$0: missing:$missing; and no apt-get" >&2; exit 1; }
  # The packages would start daemons of the system's own. However this ends, no package may stay forbidden to start one.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    ours=1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
  [ -z "${ours:-}" ] || rm -f "$policy"
fi

folder=$(mktemp -d /tmp/slurm-cluster.XXXXXX)
host=$(hostname -s)
daemons=""
command=""
stop() {
  status=$?
  trap - EXIT INT TERM
  [ -z "$command" ] || kill "$command" 2>/dev/null || true
  scancel --quiet --user=root 2>/dev/null || true
  # A cancelled job has KillWait seconds to end, and the daemons, stopped below, are what ends it.
  seconds=0
  while [ -n "$(squeue --noheader 2>/dev/null)" ] && [ "$seconds" -lt 90 ]; do seconds=$((seconds + 1)); sleep 1; done
  for pid in $daemons; do kill "$pid" 2>/dev/null || true; done
  for pid in $daemons; do wait "$pid" 2>/dev/null || true; done
  [ "$status" = 0 ] || tail -n 20 "$folder"/*.log >&2
  rm -rf "$folder"
  exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# munge insists on folders that nobody else can write.
mkdir -m 700 "$folder/state" "$folder/spool"
chmod 755 "$folder"
dd if=/dev/urandom of="$folder/munge.key" bs=128 count=1 status=none
chmod 400 "$folder/munge.key"
# Under /tmp, which everybody can write: --force turns munge's refusal into a warning.
munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munged.pid" --seed-file="$folder/munged.seed" --log-file="$folder/munged.log" \
  >"$folder/munged.out.log" 2>&1 &
daemons="$!"

# No cgroups, no accounting. A requeued job may start again once the credential of its first start has expired.
cat >"$folder/slurm.conf" <<CONF
ClusterName=rosa
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=60
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$folder/slurm.conf"
seconds=0
until [ -S "$folder/munge.socket" ]; do
  seconds=$((seconds + 1)); [ "$seconds" -le 60 ] || { echo "$0: munged did not start" >&2; exit 1; }; sleep 1
done
slurmctld -D -c -f "$SLURM_CONF" >"$folder/slurmctld.log" 2>&1 &
daemons="$! $daemons"
slurmd -D -c -f "$SLURM_CONF" >"$folder/slurmd.log" 2>&1 &
daemons="$! $daemons"
seconds=0
until [ "$(sinfo -h -o %T 2>/dev/null)" = idle ]; do
  seconds=$((seconds + 1)); [ "$seconds" -le 120 ] || { echo "$0: the node did not come up: $(sinfo 2>&1)" >&2; exit 1; }; sleep 1
done
sinfo
# In the background, since a shell hears no signal while a command is in the foreground.
"$@" &
command=$!
wait "$command"
