#!/bin/sh
# What people run from cron to empty the list that Portsentry never empties: it
# takes the host and the time out of each line, undoes the block, and deletes
# the lines of that second. The file is its argument.
file=$1
while read -r line; do
	line=$(echo "$line" | sed 's/ //g')
	host=$(echo "$line" | cut -d: -f4 | cut -d/ -f1)
	epoch=$(echo "$line" | cut -d- -f1)
	echo "$epoch $host"
	sed -i "/$epoch/d" "$file"
done <"$file.copy"
