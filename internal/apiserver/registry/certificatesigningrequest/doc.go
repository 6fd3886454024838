// Package certificatesigningrequest serves certificate signing requests: what is refused, who is written down as the
// requester, their table, their storage with /approval and /status.
//
// It does not know who may approve or sign, and signs nothing.
package certificatesigningrequest
