// Package host follows what the host itself is: its addresses, the next hops of its routes, its resolvers and the
// prefixes of its links, so that the guard never blocks the host itself nor what it cannot do without.
//
// [Watcher.Run] subscribes to rtnetlink and reads everything again after a change, at most once a second and, while a
// reading takes less than three seconds, with at most a twentieth of one processor, however many routes change. The
// files of the resolvers are looked at with each change and every half minute.
//
// Next hops are those of unicast routes of IPv4 and IPv6 in all tables, one by one or in multipath routes, also of the
// other family (RFC 8950), and those of nexthop objects, used or not. Not followed: the routes of MPLS itself, the
// segments of segment routing, the far ends of point-to-point links, and the members of VXLAN forwarding tables.
// Resolvers that a program is given in another way than by resolv.conf are not known.
//
// [Watcher.Services] tells once on which ports the host serves others; the kernel's table learns of later ones by itself.
package host
