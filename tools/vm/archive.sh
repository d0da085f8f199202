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

# debian_tree OPTION...: an archive (tar) of a new Debian tree, by mmdebstrap and its options, to standard output. Only what is named is
# installed, and what that depends on; backports are known, and taken where a version or a pin asks for them.
debian_tree() {
	local mode=root mirror=() options=() option
	[ "$(id -u)" -eq 0 ] || mode=unshare
	read -ra mirror < <(debian_mirror) || true
	while read -r option; do
		options+=(--aptopt="$option")
	done < <(host_apt_options)
	mmdebstrap --mode="$mode" --format=tar --aptopt='APT::Install-Recommends "false"' "${options[@]}" \
		--setup-hook="sed -i '/ $suite /{p;s/ $suite / $suite-backports /}' \"\$1/etc/apt/sources.list\"" \
		"$@" "$suite" - "${mirror[@]}"
}
