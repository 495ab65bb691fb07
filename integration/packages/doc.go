// Package packages tests the Debian, RPM and Alpine packages: they are built,
// looked into, installed, upgraded and removed in a copy of this host's files
// that is thrown away, and the daemon in it guards a network namespace. It has
// tests only.
package packages
