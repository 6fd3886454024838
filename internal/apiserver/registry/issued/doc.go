// Package issued serves the records of the ledger as objects: IssuedToken and IssuedCertificate. No object is stored. Reading
// makes objects from records, a watch makes events from the changes of the ledger, and a deletion revokes the credential. Objects
// cannot be created or changed.
//
// The package declares what it needs from the ledger as interfaces. It does not know how records and revocations are stored.
package issued
