# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2034,SC2154 # shared with those who source this
#
# A Debian system to install packages into: a copy of the build root, entered by bubblewrap, never booted. For scripts that have
# sourced tools/vm/lib.sh. It is in $system, and gone when the script ends.

mkdir -p "$cache/run"
work=$(mktemp -d "$cache/run/system.XXXXXX")
trap 'rm -rf "$work"' EXIT
system=$work/system
release=$(cat "$("$vm/kernel")/release")
debs=$top/build/packages

# What is in /usr is replaced when it changes, never written to: links will do.
new_system() {
	local root
	root=$("$vm/root")
	mkdir -p "$system/boot"
	cp -al "$root/usr" "$system/usr"
	cp -a "$root/etc" "$root/var" "$system/"
}

# in_system [BWRAP OPTION]... -- COMMAND...
in_system() {
	local options=()
	[ "$(id -u)" -eq 0 ] || options=(--unshare-user --uid 0 --gid 0)
	in_root "$system" "${options[@]}" --bind "$system/usr" /usr --bind "$system/etc" /etc --bind "$system/var" /var \
		--bind "$system/boot" /boot --setenv DEBIAN_FRONTEND noninteractive "$@"
}

# package NAME VERSION: of Debian's, with what is in $work/NAME; installs it, whatever it depends on.
package() {
	mkdir -p "$work/$1/DEBIAN"
	printf '%s\n' "Package: $1" "Version: $2" 'Architecture: all' 'Maintainer: nobody <nobody@example.org>' \
		'Description: stands for the one of that name' >"$work/$1/DEBIAN/control"
	in_root "$system" -- dpkg-deb --root-owner-group -Znone -b "$work/$1" "$work/$1.deb"
	in_system -- dpkg -i "$work/$1.deb"
}

fail() {
	echo "$*"
	exit 1
}
