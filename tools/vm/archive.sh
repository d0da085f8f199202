# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash
#
# Debian's archive: trees made from it. For scripts that have sourced lib.sh.

# The release that everything here is made of, with what it gets as backports.
suite=trixie

# The mirror and the settings that this machine's own apt uses; mmdebstrap's built-in mirror elsewhere.
debian_mirror() {
	if [ -n "${DEBIAN_MIRROR:-}" ]; then
		echo "$DEBIAN_MIRROR"
	elif command -v apt-get >/dev/null; then
		# shellcheck disable=SC2016 # apt's own variables
		apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
			awk '$1 == "Debian" && $2 == "main" && $3 ~ /\/debian\/?$/ { print $3; exit }'
	fi
}

host_apt_options() {
	local setting
	command -v apt-config >/dev/null || return 0
	for setting in Acquire::Check-Valid-Until Acquire::http::Proxy Acquire::https::Proxy; do
		apt-config dump "$setting"
	done
}

need_debian_tree() {
	local packages=(mmdebstrap=mmdebstrap)
	[ "$(id -u)" -eq 0 ] || packages+=(newuidmap=uidmap)
	need_host_packages "${packages[@]}"
}

in_namespace() {
	local mode=root
	[ "$(id -u)" -eq 0 ] || mode=unshare
	mmdebstrap --mode="$mode" --format=tar "$@"
}

# debian_tree OPTION...: an archive (tar) of a new Debian tree, by mmdebstrap and its options, to standard output. Only what is named is
# installed, and what that depends on; backports are known, and taken where a version or a pin asks for them.
debian_tree() {
	local mirror=() options=() option
	read -ra mirror < <(debian_mirror) || true
	while read -r option; do
		options+=(--aptopt="$option")
	done < <(host_apt_options)
	in_namespace --aptopt='APT::Install-Recommends "false"' "${options[@]}" \
		--setup-hook="sed -i '/ $suite /{p;s/ $suite / $suite-backports /}' \"\$1/etc/apt/sources.list\"" \
		"$@" "$suite" - "${mirror[@]}"
}

# changed_tree TREE HOOK: the same of a tree that is there (tar), when HOOK has changed it.
changed_tree() {
	# Devices can't be made in a user namespace, and are not needed.
	in_namespace --variant=custom --skip=setup,update,cleanup \
		--setup-hook="tar -x -C \"\$1\" --exclude='./dev/*' -f '$1' && mkdir \"\$1/dev/pts\" \"\$1/dev/shm\"" \
		--customize-hook="$2" '' -
}
