// Package api is the control socket: how the commands of nftsentry talk to
// the daemon, as JSON over HTTP on a unix socket.
//
// The types are what crosses the socket and what --json prints; their fields
// stay as they are once released.
//
//	GET    /v1/status                 Status
//	GET    /v1/blocks                 [Block, ...], the oldest first
//	POST   /v1/blocks                 BlockRequest -> Block
//	DELETE /v1/blocks?source=PREFIX   Block, as it was
//	DELETE /v1/blocks?all=true        UnblockedAll
//	POST   /v1/bulk/block             BulkRequest -> [Block, ...], all or none
//	POST   /v1/bulk/unblock           BulkRequest -> BulkUnblocked
//	GET    /v1/report?edges=TIME,...&from=TIME&to=TIME
//	                                  Report; times are seconds since 1970, see ReportRequest
//	POST   /v1/reload                 Reloaded
//	POST   /v1/panic                  Panicked
//	POST   /v1/resume                 Panicked
//
// A request has 4 KiB at most, a bulk request 16 MiB.
//
// Whatever goes wrong is answered by a status of 400 or more and a Problem:
// 400 for a request that is wrong in itself, 403 for a client that has no right
// to the socket. What is not HTTP at all is answered as net/http does.
package api
