# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash
#
# Shared by the scripts in this folder: where things are kept, how steps are shown, how the build root is entered.
#
# Everything that is built once lives in $cache, outside of any work tree. A part is a folder named after a hash of what it
# was made from: it is made under another name and renamed when it is complete, so that it is either whole or absent.

set -euo pipefail

vm=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034 # for the scripts that source this file
top=$(cd "$vm/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/virtio_device_stop

# Progress belongs to people: it goes to stderr, so that stdout can carry a result.
say() {
	printf '%s\n' "$*" >&2
}

die() {
	say "${0##*/}: $*"
	exit 1
}

# elapsed SECONDS: 0:07, 2:31
elapsed() {
	printf '%d:%02d' $(($1 / 60)) $(($1 % 60))
}

# Shows that a step is alive: every second on a terminal, every half minute in a log. Ends with the script.
tick() {
	local name=$1 start=$SECONDS never
	exec {never}<> <(:)
	if [ -t 2 ]; then
		while ! read -rt 1 -u "$never" && kill -0 $$ 2>/dev/null; do
			printf '\r  %-56s %s' "$name" "$(elapsed $((SECONDS - start)))" >&2
		done
	else
		while ! read -rt 30 -u "$never" && kill -0 $$ 2>/dev/null; do
			printf '  %-56s %s\n' "$name ..." "$(elapsed $((SECONDS - start)))" >&2
		done
	fi
}

# step NAME COMMAND...: runs COMMAND, a function or a program, with its output in a log file. Ends the script if it fails.
# Not to be called in a condition: bash would then ignore errors inside COMMAND.
step() {
	local name=$1 start=$SECONDS status ticker log
	shift
	mkdir -p "$cache/log"
	log=$cache/log/${name//[^a-zA-Z0-9]/-}.log
	[ -t 2 ] || printf '  %s ...\n' "$name" >&2
	tick "$name" &
	ticker=$!
	set +e
	(
		set -e
		"$@"
	) >"$log" 2>&1 </dev/null
	status=$?
	set -e
	kill "$ticker" 2>/dev/null || true
	wait "$ticker" 2>/dev/null || true
	[ ! -t 2 ] || printf '\r' >&2
	if [ "$status" -ne 0 ]; then
		printf '  %-56s failed after %s\n' "$name" "$(elapsed $((SECONDS - start)))" >&2
		tail -n 30 "$log" | sed 's/^/    /' >&2
		say "  the whole log: $log"
		exit 1
	fi
	printf '  %-56s %s\n' "$name" "$(elapsed $((SECONDS - start)))" >&2
}

# hash_of FILE...|-: names a part after what it is made from; with -, standard input too.
hash_of() {
	cat "$@" | sha256sum | cut -c 1-12
}

# lock NAME: waits until no other process is making NAME; holds the lock until this script ends.
lock() {
	local fd
	mkdir -p "$cache"
	exec {fd}>"$cache/.lock-$1"
	flock -n "$fd" && return
	say "Waiting for another process that is making the same part ($1)."
	flock "$fd"
}

# used PART: prints a part's path, and notes that it is of use.
used() {
	touch "$1"
	echo "$1"
}

# prune FOLDER: removes the parts in it that were abandoned half-made, or that no work tree has used for two weeks.
prune() {
	local part
	mkdir -p "$1"
	find "$1" -mindepth 1 -maxdepth 1 \( -name new -o -mtime +14 \) -print0 | while IFS= read -rd '' part; do
		forget "$part"
	done
}

# forget PART...: removes parts.
forget() {
	local part
	for part in "$@"; do
		if [ -e "$part" ]; then
			chmod -R u+w "$part"
			rm -rf "$part"
		fi
	done
}

# need_space MIB WHAT
need_space() {
	local free
	mkdir -p "$cache"
	free=$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')
	[ "$free" -ge "$1" ] || die "$2 needs $1 MiB of disk in $cache, but only $free MiB are free." \
		"Free some, or set XDG_CACHE_HOME to a folder on a larger disk."
}

# need_host_packages PROGRAM=PACKAGE...: what this machine itself must have. Root and CI install it, others are told how.
need_host_packages() {
	local pair missing=() as_root=()
	for pair; do
		command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	if [ "$(id -u)" -ne 0 ]; then
		as_root=(sudo -n)
		if [ -z "${CI:-}" ] || ! sudo -n true 2>/dev/null; then
			die "this machine lacks ${missing[*]}. Install with: sudo apt-get install ${missing[*]}"
		fi
	fi
	command -v apt-get >/dev/null ||
		die "this machine lacks ${missing[*]}, and has no apt-get: install them with its own package manager"
	say "This machine lacks ${missing[*]}: installing with apt-get."
	step "apt-get install ${missing[*]}" install_host_packages
}

install_host_packages() {
	export DEBIAN_FRONTEND=noninteractive
	"${as_root[@]}" apt-get update -q
	"${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# The certificates that this machine trusts, where a proxy with its own authority may have been added.
host_certificates() {
	local file
	for file in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
		if [ -n "$file" ] && [ -r "$file" ]; then
			realpath "$file"
			return
		fi
	done
}

# in_root ROOT [BWRAP OPTION]... -- COMMAND...: runs COMMAND with the programs of the build root (its /usr and /etc) on this
# machine's files: every other folder is the host's, under the host's name. The root itself can't be written.
in_root() {
	local root=$1 entry variable certificates options
	shift
	options=(
		--unshare-pid --die-with-parent --clearenv
		--ro-bind "$root/usr" /usr --ro-bind "$root/etc" /etc
		--symlink usr/bin /bin --symlink usr/sbin /sbin --symlink usr/lib /lib --symlink usr/lib64 /lib64
		--proc /proc --dev /dev --dev-bind-try /dev/kvm /dev/kvm
		--setenv PATH /usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
		--setenv HOME "$cache" --setenv CARGO_HOME "$cache/cargo" --setenv LANG C.UTF-8
	)
	for entry in /*; do
		case $entry in
		/bin | /sbin | /lib | /lib32 | /lib64 | /libx32 | /usr | /etc | /proc | /dev) ;;
		*) [ ! -d "$entry" ] || [ -L "$entry" ] || options+=(--bind "$entry" "$entry") ;;
		esac
	done
	for entry in /etc/resolv.conf /etc/hosts; do
		[ ! -e "$entry" ] || options+=(--ro-bind "$(realpath "$entry")" "$entry")
	done
	certificates=$(host_certificates)
	if [ -n "$certificates" ]; then
		entry=/etc/ssl/certs/ca-certificates.crt
		options+=(--ro-bind "$certificates" "$entry" --setenv SSL_CERT_FILE "$entry" --setenv CARGO_HTTP_CAINFO "$entry")
	fi
	for variable in TERM NO_COLOR http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
		[ -z "${!variable:-}" ] || options+=(--setenv "$variable" "${!variable}")
	done
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	bwrap "${options[@]}" -- "$@"
}
