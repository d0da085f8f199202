# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2016,SC2154 # the guest's variables; shared with tools/testing/ends
#
# The host copies the image of a disk on which a database is written to.

end_snapshot() {
	start_agents
	check "a database is written to" in_debian "$write_database"
	check "rows are committed" wait_until 120 has_committed 50
	check "the host copies the disk while it runs" sh -c "$copy" _ "$devices"
	check "what it has copied is torn, whatever is repaired in it" copy_is_torn
	check "the host copies it while it stands still" while_stopped /srv -- sh -c "$copy" _ "$devices"
	check "what it has copied is whole" is_whole "$devices/copy"
	check "the database in it needs no repair, and has the row that was committed last" copy_has_last_row
	check "more rows are committed" wait_until 120 has_committed $(($(cat "$devices/last") + 10))
	end_agents
}

# As slowly as the host would copy a disk of the usual size. What the guest has told until then goes to "last".
copy='
told() {
	grep -ao "committed [0-9]*" "$1/console" | tail -n 1 | grep -o "[0-9]*"
}
told "$1" >"$1/last"
for part in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
	dd if="$1/data" of="$1/copy" bs=4M count=1 skip="$part" seek="$part" conv=notrunc status=none
	sleep 0.3
done'

# Each row is told on the console once it is committed.
write_database='
systemctl stop writes
sqlite3 /srv/database "PRAGMA journal_mode=WAL; CREATE TABLE rows (number INTEGER PRIMARY KEY, data BLOB)"
cat >/run/rows <<"END"
row=0
while sqlite3 /srv/database "PRAGMA synchronous=FULL; INSERT INTO rows VALUES ($((row + 1)), randomblob(50000));
	DELETE FROM rows WHERE number < $((row - 200))"; do
	row=$((row + 1))
	echo "committed $row" >/dev/ttyS0
done
END
systemd-run --quiet --unit=rows sh /run/rows'

has_committed() {
	local row
	row=$(grep -ao 'committed [0-9]*' "$devices/console" | tail -n 1)
	[ "${row#* }" -ge "$1" ] 2>/dev/null
}

# open_copy SCRIPT: prints the last row of the database in it, if that is in order, once the guest has done SCRIPT with a disk of the
# same contents.
open_copy() {
	dd if="$devices/copy" of="$devices/raw" bs=1M conv=notrunc status=none
	in_debian '
		disk=/dev/disk/by-id/virtio-raw
		blockdev --flushbufs "$disk"
		eval "$1" >&2
		mount "$disk" /media
		trap "umount /media" EXIT
		checked=$(sqlite3 /media/database "PRAGMA integrity_check")
		[ "$checked" = ok ] || { echo "$checked" >&2 && exit 1; }
		sqlite3 /media/database "SELECT max(number) FROM rows"' "$1"
}

# The row that follows may have been committed, but not told.
copy_has_last_row() {
	local row last
	last=$(cat "$devices/last")
	row=$(open_copy true) && { [ "$row" -eq "$last" ] || [ "$row" -eq $((last + 1)) ]; }
}

copy_is_torn() {
	local row
	if row=$(open_copy 'e2fsck -p "$disk" || [ $? -eq 1 ]' 2>"$devices/answer"); then
		echo "# # it has row $row"
		return 1
	fi
	sed 's/^/# # /' "$devices/answer"
}
