package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"time"

	"go.uber.org/zap"

	"nftsentry/conf"
	"nftsentry/controller"
	"nftsentry/controller/api"
	"nftsentry/controller/compat"
	"nftsentry/controller/hook"
	"nftsentry/controller/hook/remote"
	"nftsentry/listener"
	"nftsentry/state"
)

// Hooks are told of what happens: a *hook.Runner in this process, or a
// *remote.Client of one in another.
type hooks interface {
	Tell(e hook.Event)
	Sync(live []hook.Event)
	Prepare(ctx context.Context, cfg hook.Config) (hook.Prepared, error)
	Stats() []hook.Stat
	Run(ctx context.Context) error
}

var (
	_ hooks = (*hook.Runner)(nil)
	_ hooks = (*remote.Client)(nil)
)

// openHooks checks what the hooks need, before anything is blocked. A service
// checks that itself, and need not be there.
func (g *guard) openHooks(cfg conf.Config) (err error) {
	if g.hookSocket != "" {
		g.service = remote.New(remote.Config{Socket: g.hookSocket, Resync: g.resyncService}, g.log.Named("hook"))
		g.hooks = g.service
		return nil
	}
	g.hooks, err = hook.New(hookConfig(cfg.Hook, g.programRan), g.log.Named("hook"))
	return err
}

// syncHooks has hosts.deny follow the blocks that there are.
func (g *guard) syncHooks(ctx context.Context) error {
	if g.cfg.Load().Hook.HostsDeny == nil {
		return nil
	}
	return g.controller.Witness(ctx, func(live []state.Block) {
		events := make([]hook.Event, len(live))
		for i, b := range live {
			events[i] = hookEvent(hook.Block, b, "")
		}
		g.hooks.Sync(events)
	})
}

// resync is syncHooks for who has changed what is in force, whether or not he
// waits for it.
func (g *guard) resync() {
	ctx, cancel := context.WithTimeout(context.Background(), syncWithin)
	defer cancel()
	if err := g.syncHooks(ctx); err != nil {
		g.log.Warn("hosts.deny was not looked through: reload again", zap.Error(err))
	}
}

// resyncService has hosts.deny follow the blocks in a hook service that may have
// missed some.
func (g *guard) resyncService(ctx context.Context) {
	if err := ended(ctx, g.syncHooks(ctx)); err != nil {
		g.log.Warn("hosts.deny was not looked through: reload again", zap.Error(err))
	}
}

// syncWithin is how long the controller may take to tell of all blocks.
const syncWithin = 10 * time.Second

// hooked is what the notices are that hooks are for.
var hooked = map[controller.What]hook.On{
	controller.Sentenced: hook.Before, controller.Blocked: hook.Block, controller.Unblocked: hook.Unblock,
	controller.Triggered: hook.Run,
}

// tellHooks has the hooks told what they are for.
func (g *guard) tellHooks(n controller.Notice) {
	if on, ok := hooked[n.What]; ok {
		g.hooks.Tell(hookEvent(on, n.Block, n.Reason))
	}
}

func hookEvent(on hook.On, b state.Block, reason string) hook.Event {
	e := hook.Event{
		On: on, Source: b.Source, Address: b.Address, Port: b.Port, Protocol: b.Protocol, Kind: b.Kind, Evidence: b.Evidence,
		Origin: string(b.Origin), Comment: b.Comment, Reason: reason, Strikes: b.Strikes, Since: b.Since, Until: b.Until,
	}
	if b.Kind == listener.Connect.String() {
		e.Mode = "tcp" // as Portsentry says of a connection
	}
	return e
}

// hookConfig is the configuration in the words of the hooks. Ran is told of
// each program that has run; nil for nobody.
func hookConfig(c conf.Hook, ran func(e hook.Event, command string)) hook.Config {
	out := hook.Config{ModeTCP: c.ModeTCP, ModeUDP: c.ModeUDP, Ran: ran}
	for _, e := range c.Exec {
		out.Exec = append(out.Exec, hook.Exec{Common: hookCommon(e.HookCommon), Command: e.Command, Before: e.Before})
	}
	for _, m := range c.Mail {
		out.Mail = append(out.Mail, hook.Mail{
			Common: hookCommon(m.HookCommon), From: m.From, To: m.To, Server: m.Server, Sendmail: m.Sendmail, TLS: string(m.TLS),
			User: m.User, PasswordFile: m.PasswordFile, Digest: m.Digest, Subject: m.Subject, Body: m.Body,
		})
	}
	for _, w := range c.Webhook {
		out.Webhook = append(out.Webhook, hook.Webhook{
			Common: hookCommon(w.HookCommon), URL: w.URL, Method: w.Method, Headers: w.Headers, Body: w.Body,
		})
	}
	if d := c.HostsDeny; d != nil {
		out.HostsDeny = &hook.HostsDeny{Line: d.Line, File: d.File, Owner: denyOwner()}
	}
	return out
}

// hookUser is the user that the hook service runs as, where it is installed.
const hookUser = "nftsentry-hook"

// denyOwner is whose a file in place of hosts.deny may be, besides root's: that
// of the hook service, whether it asks or root does; 0 if there is none.
func denyOwner() uint32 {
	if id := os.Geteuid(); id != 0 {
		return uint32(id)
	}
	u, err := user.Lookup(hookUser)
	if err != nil {
		return 0
	}
	id, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(id)
}

func hookCommon(c conf.HookCommon) hook.Common {
	out := hook.Common{Timeout: c.Timeout, Limit: hook.Rate(c.Limit)}
	for _, on := range c.On {
		out.On = append(out.On, hook.On(on))
	}
	return out
}

// programRan logs a program as Portsentry would.
func (g *guard) programRan(e hook.Event, command string) {
	g.compatLine(compat.Ran(e.Target(), command))
}

// hookStatus is what has become of the events of each hook.
func hookStatus(stats []hook.Stat) []api.Hook {
	out := []api.Hook{}
	for _, s := range stats {
		out = append(out, api.Hook(s))
	}
	return out
}

// serviceStatus is how the hook service is reached; nil if there is none.
func (g *guard) serviceStatus() *api.HookService {
	if g.service == nil {
		return nil
	}
	h := g.service.Health()
	s := &api.HookService{Socket: h.Socket, Waiting: h.Waiting, Dropped: h.Dropped}
	if h.Away != nil {
		s.Problem, s.Since = h.Away.Error(), h.Since.UTC().Truncate(time.Second)
	}
	return s
}

// problem says of a service that does not answer what that means; "" of others.
func hookProblem(s *api.HookService) string {
	if s == nil || s.Problem == "" {
		return ""
	}
	return fmt.Sprintf("hooks are not told, and blocks go on: %s; %s", s.Problem, waitingLine(*s))
}

// waitingLine is what has become of events that a service does not know of.
func waitingLine(s api.HookService) string {
	line := plural(s.Waiting, "event") + " in the queue"
	if s.Dropped > 0 {
		line += fmt.Sprintf(", %d dropped", s.Dropped)
	}
	return line
}

// serviceLine is the service as a person sees it.
func serviceLine(s api.HookService) string {
	if s.Problem != "" {
		return fmt.Sprintf("%s does not answer since %s; %s", s.Socket, s.Since.Format(time.RFC3339), waitingLine(s))
	}
	return fmt.Sprintf("%s answers; %s", s.Socket, waitingLine(s))
}

// hookLine is a hook as a person sees it.
func hookLine(h api.Hook) string {
	line := fmt.Sprintf("%s %s: %d done", h.Name, h.What, h.Done)
	for _, more := range []struct {
		n    uint64
		what string
	}{
		{h.Failed, "failed"}, {h.TimedOut, "out of time"}, {h.Dropped, "dropped for want of room"}, {h.Limited, "left out by its limit"},
	} {
		if more.n > 0 {
			line += fmt.Sprintf(", %d %s", more.n, more.what)
		}
	}
	return line
}
