#!/bin/sh
# Runs the tests that lie beside this file, as root on FreeBSD; needs a shell
# and no cargo. tests/freebsd/run puts them here.
#
#   run.sh [TEST...]     all of them without arguments
#
# Prints for each executable whether it passed and what was skipped, what a
# failed one said, and at last "passed N failed N skipped N", counted in tests.
# Ends with 0 when none failed. TEST_LIMIT: seconds that one executable has (1800).
#
# kyua(1) runs them as well: the Kyuafile lists them as plain programs.
cd "$(dirname "$0")" || exit 1
here=$(pwd)
export VTNETD_BIN="$here" TMPDIR="${TMPDIR:-/tmp}"
# pkt-gen, bridge and lb are a port's (net/pkt-gen), valectl(8) is the system's.
if [ -x /usr/local/bin/pkt-gen ]; then
	export NETMAP_PROGRAMS="${NETMAP_PROGRAMS:-/usr/local/bin:/usr/sbin}"
fi
limit=${TEST_LIMIT:-1800}
passed=0 failed=0 skipped=0

# test result: ok. N passed; N failed; N ignored; ...
count() { # NAME LOG STATUS
	own_passed=0 own_failed=0 own_skipped=0
	while IFS= read -r line; do
		case $line in
		"test result: "*)
			# shellcheck disable=SC2086 # Its words are what is wanted.
			set -- "$1" "$2" "$3" $line
			own_passed=$7 own_failed=$9 own_skipped=${11}
			;;
		*"skipped: "*) echo "skipped: ${line#*skipped: }" ;;
		esac
	done < "$2"
	if [ "$3" != 0 ] && [ "$own_failed" = 0 ]; then
		# It did not come to its end.
		own_failed=1
	fi
	passed=$((passed + own_passed))
	failed=$((failed + own_failed))
	skipped=$((skipped + own_skipped))
	word=pass
	if [ "$own_failed" != 0 ]; then
		word=FAIL
		while IFS= read -r line; do
			echo "    $line"
		done < "$2"
	elif [ "$own_passed" = 0 ]; then
		word=skip
	fi
	echo "$word $1: $own_passed passed, $own_failed failed, $own_skipped skipped (status $3)"
}

[ $# != 0 ] || set -- *.test
for name; do
	name=${name%.test}
	echo "== $name"
	log=${TMPDIR}/vtnetd-test-$name.log
	"$here/$name.test" > "$log" 2>&1 < /dev/null &
	running=$!
	(
		sleep "$limit" &
		sleeping=$!
		trap 'kill $sleeping; exit' TERM
		wait
		echo "$name: not done after $limit s"
		kill -9 $running
	) &
	watch=$!
	wait $running
	status=$?
	kill $watch 2> /dev/null
	wait $watch 2> /dev/null
	count "$name" "$log" $status
	rm -f "$log"
done
echo "passed $passed failed $failed skipped $skipped"
[ $failed = 0 ]
