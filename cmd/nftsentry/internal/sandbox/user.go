package sandbox

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// A User is whom a daemon becomes.
type User struct {
	Name   string
	UID    int
	GID    int
	Groups []int // besides GID
}

// ErrNoUser means that the host has no such user.
var ErrNoUser = errors.New("this host has no such user")

// FindUser finds a user by name.
//
// Errors: ErrNoUser, a user who is root, and those of the look-up.
func FindUser(name string) (User, error) {
	found, err := user.Lookup(name)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		return User{}, fmt.Errorf("%w: add it, such as by: useradd --system --no-create-home --shell /usr/sbin/nologin %s", ErrNoUser, name)
	}
	if err != nil {
		return User{}, fmt.Errorf("look up the user: %w", err)
	}
	u := User{Name: found.Username}
	if u.UID, err = strconv.Atoi(found.Uid); err != nil {
		return User{}, fmt.Errorf("look up the user: %w", err)
	}
	if u.GID, err = strconv.Atoi(found.Gid); err != nil {
		return User{}, fmt.Errorf("look up the user: %w", err)
	}
	if u.UID == 0 {
		return User{}, errors.New("this user is root: name another, or leave the flag out")
	}
	groups, err := found.GroupIds()
	if err != nil {
		return User{}, fmt.Errorf("look up the groups of the user: %w", err)
	}
	for _, g := range groups {
		if gid, err := strconv.Atoi(g); err == nil && gid != u.GID {
			u.Groups = append(u.Groups, gid)
		}
	}
	return u, nil
}

// Become makes all threads of a process of root's belong to a user, with no rights but those named: these are in its
// effective, permitted and bounding sets; the inheritable and ambient sets are empty. No program that it starts gets
// new rights. An error may leave the process in between: it has to end.
func Become(u User, keep ...cap.Value) error {
	kept := make(map[cap.Value]bool)
	for _, c := range keep {
		kept[c] = true
	}
	var others []cap.Value
	for c := cap.Value(0); c < cap.MaxBits(); c++ {
		if !kept[c] {
			others = append(others, c)
		}
	}
	rights := cap.NewSet()
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"drop rights for good", func() error { return cap.DropBound(others...) }},
		{"drop ambient rights", cap.ResetAmbient},
		{"become a member of the user's groups", func() error { return cap.SetGroups(u.GID, u.Groups...) }},
		{"become the user", func() error { return cap.SetUID(u.UID) }},
		{"name the rights to keep", func() error {
			return errors.Join(rights.SetFlag(cap.Permitted, true, keep...), rights.SetFlag(cap.Effective, true, keep...))
		}},
		{"drop all other rights", rights.SetProc},
		{"refuse new rights", func() error { _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1); return err }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}
