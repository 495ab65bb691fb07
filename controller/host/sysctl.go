package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// The kernel's parameters that matter to a guard, ip-sysctl and nf_conntrack-sysctl in
// https://docs.kernel.org/networking/
const (
	conntrackMaxPath = "/proc/sys/net/netfilter/nf_conntrack_max"
	localPortsPath   = "/proc/sys/net/ipv4/ip_local_port_range"
)

// defaultConntrackMax is what a host with 1 GiB of memory has since Linux 2.6.
const defaultConntrackMax = 65536

// ConntrackMax returns how many connections connection tracking remembers at the most. Where its module is not loaded
// yet that is not known, and a small host is assumed.
func ConntrackMax() (int, error) {
	var most int
	err := scanFile(conntrackMaxPath, &most)
	if errors.Is(err, fs.ErrNotExist) {
		return defaultConntrackMax, nil
	}
	if err == nil && most <= 0 {
		err = fmt.Errorf("%s: %d is no size", conntrackMaxPath, most)
	}
	if err != nil {
		return defaultConntrackMax, err
	}
	return most, nil
}

// LocalPorts returns the ports, both included, from which the host itself connects.
func LocalPorts() (first, last uint16, err error) {
	if err := scanFile(localPortsPath, &first, &last); err != nil {
		return 0, 0, err
	}
	if first == 0 || first > last {
		return 0, 0, fmt.Errorf("%s: %d to %d is no range", localPortsPath, first, last)
	}
	return first, last, nil
}

// scanFile reads the numbers in a file.
func scanFile(path string, into ...any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if _, err := fmt.Sscan(string(data), into...); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
