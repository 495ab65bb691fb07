package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"nftsentry/integration/namespace"
	"nftsentry/nft"
	"nftsentry/nft/survey"
)

// checkTable compares our table with one that is made from the configuration in a network namespace of its own, which is
// gone a moment later.
func (e *exam) checkTable(context.Context) []Finding {
	const c check = "table"
	if !e.rights.admin {
		return nil
	}
	if e.rulesetErr != nil {
		return []Finding{c.fail("run it as root of this network namespace", "nftables cannot be read: %v", e.rulesetErr)}
	}
	got, there := e.ours()
	if !there || got.Dormant || e.Panicked {
		return []Finding{judgeTable(there, got.Dormant, e.running(), e.Panicked, nil, nil)}
	}
	ports := []uint16{e.daemon.Decoys.Listener}
	if !e.running() {
		ports = []uint16{0, anyPort} // ended in order, or killed
	}
	var diff []string
	for _, port := range ports {
		want, err := freshTable(e.Table(port))
		if diff = differences(want, got); err != nil || len(diff) == 0 {
			return []Finding{judgeTable(true, false, e.running(), false, nil, err)}
		}
	}
	return []Finding{judgeTable(true, false, e.running(), false, diff, nil)}
}

// freshTable makes the table where nobody is, and reads it back.
func freshTable(cfg nft.Config) (survey.Table, error) {
	h, err := namespace.Open("fresh")
	if err != nil {
		return survey.Table{}, err
	}
	defer h.Close()
	t, err := nft.Open(h.FD(), cfg.Prefix6)
	if err != nil {
		return survey.Table{}, err
	}
	defer t.Close()
	if err := t.Load(cfg, nil, nil); err != nil {
		return survey.Table{}, err
	}
	r, err := survey.Read(h.FD())
	table, _ := r.Table("inet", nft.TableName)
	return table, err
}

func judgeTable(there, dormant, running, panicked bool, diff []string, incomparable error) Finding {
	const c check = "table"
	const name = "table inet " + nft.TableName
	switch {
	case panicked && !there:
		return c.warn("end the panic with \"nftsentry resume\"", "no %s, because of \"nftsentry panic\": nothing is noticed or blocked", name)
	case panicked:
		return c.warn("end the panic with \"nftsentry resume\"", "all blocks are suspended by \"nftsentry panic\"")
	case !there && running:
		return c.fail("see the log of the daemon for who deletes it", "no %s, and yet the daemon is running", name)
	case !there:
		return c.warn("start the daemon with \"systemctl start nftsentry\" or \"nftsentry run\"", "no %s: nothing is noticed or blocked", name)
	case dormant:
		return c.fail("find out who has put it to sleep, and restart the daemon", "%s is dormant: the kernel passes over it", name)
	case incomparable != nil:
		return c.ok("%s is there; it was not compared with the configuration: %v", name, incomparable)
	case len(diff) > 0:
		return c.warn("\"nftsentry reload\" makes it again; if it differs then, too, find out who changes it",
			"%s is not what this configuration makes: %s", name, some(diff, 4))
	}
	return c.ok("%s is there and intact", name)
}

// some names the first of a list.
func some(list []string, most int) string {
	if len(list) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
	}
	return strings.Join(list, ", ")
}

// differences says in which chains two tables differ.
func differences(want, got survey.Table) []string {
	index := func(t survey.Table) map[string]survey.Chain {
		all := make(map[string]survey.Chain)
		for _, c := range t.Chains {
			all[c.Name] = c
		}
		return all
	}
	wanted, found := index(want), index(got)
	var out []string
	for name, w := range wanted {
		g, there := found[name]
		switch {
		case !there:
			out = append(out, "no chain "+name)
		case w.Hook != g.Hook || w.Priority != g.Priority || w.Policy != g.Policy || w.Type != g.Type:
			out = append(out, "chain "+name+" has another place")
		case !slices.EqualFunc(w.Rules, g.Rules, sameRule):
			out = append(out, fmt.Sprintf("chain %s has other rules", name))
		}
	}
	for name := range found {
		if _, known := wanted[name]; !known {
			out = append(out, "chain "+name+" is not ours")
		}
	}
	slices.Sort(out)
	return out
}

func sameRule(a, b survey.Rule) bool {
	return a.Drops == b.Drops && a.Accepts == b.Accepts && a.Translates == b.Translates && a.Always == b.Always && slices.Equal(a.Leads, b.Leads)
}
