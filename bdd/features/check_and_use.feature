Feature: Between check and use
  What changes before the check is found before the work; what changes behind it is found by a bracket, or by the next check.

  @VER-1 @VER-4 @VER-5
  Scenario Outline: However use begins, it begins only over the bytes that were sealed
    Given a manager that quarantines only the shard
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    When <use>
    Then it succeeds
    When bit 3 of byte 69999 of part-0 flips in VRAM
    And <use again>
    Then it is an integrity failure of part-0 that covers byte 69999
    And part-0 is quarantined as evidence
    And part-1 still verifies

    Examples:
      | use                                                | use again                          |
      | I execute part-0                                   | I execute part-0                   |
      # The whole image is checked, not what is read.
      | I read 10 bytes at 0 of part-0                     | I read 10 bytes at 0 of part-0     |
      | I drop an execution of part-0 without finishing it | I take a guard of part-0           |
      | I verify part-0                                    | I take a bracketed guard of part-0 |
      | I verify part-0                                    | I begin the batch part-1, part-0   |
      | I verify part-0                                    | I begin bracketed the batch part-0 |
      | I reseal part-0                                    | I reseal part-0                    |

  @VER-1 @CON-1
  Scenario: A check that began before the call does not serve it
    Given a manager that quarantines only the shard
    And weights llama of 900000 bytes
    And the shard part-0 is sealed from llama
    When part-0 is executed while an older check of it is under way
    Then the work ran
    And the trail has 2 times seal_verified
    When part-0 is executed while an older check of it is under way, and bit 5 of byte 0 flips between the two
    Then it is an integrity failure of part-0 that covers byte 0
    And the work did not run

  @VER-6
  Scenario: A bracket that finds nothing lets the result count
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When I take a bracketed guard of part-0
    And the guard finishes
    Then it succeeds
    And 1 digest was taken since
    And the executions ended as: finished

  @VER-6 @VER-5
  Scenario: A bracket discards the result of work over bytes that changed
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When I take a bracketed guard of part-0
    And bit 3 of byte 40000 of part-0 flips in VRAM
    And the guard finishes
    Then it is an integrity failure of part-0 that covers byte 40000
    And the executions ended as: discarded
    And the manager has stopped for integrity

  @VER-6
  Scenario: Without a bracket only the next check finds the change
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When I take a guard of part-0
    And bit 3 of byte 40000 of part-0 flips in VRAM
    And the guard finishes
    Then it succeeds
    And 0 digests were taken since
    When I take a guard of part-0
    Then it is an integrity failure of part-0 that covers byte 40000

  @VER-6 @VER-7
  Scenario: In a bracketed batch only the changed result is lost
    Given a manager that quarantines only the shard
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    When I begin bracketed the batch part-0, part-1
    And bit 3 of byte 40000 of part-1 flips in VRAM
    And the batch finishes
    Then it is an integrity failure of part-1 that covers byte 40000
    And the executions ended as: finished, discarded

  @VER-1 @VER-7
  Scenario: What changes behind the check of a batch is found by the next
    Given a manager that quarantines only the shard
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    When I begin the batch part-0, part-1
    And bit 3 of byte 40000 of part-0 flips in VRAM
    And the batch finishes
    Then it succeeds
    And the executions ended as: finished, finished
    When I begin the batch part-1, part-0
    Then it is an integrity failure of part-0 that covers byte 40000
    And there is no guard
    When I go on
    And I begin the batch part-1
    Then it succeeds

  @VER-6 @VER-3
  Scenario: Of two uses at once the bracketed one tells of a change behind both checks, and neither result counts
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When I take a guard of part-0
    And I take a bracketed guard of part-0
    And bit 3 of byte 40000 of part-0 flips in VRAM
    And the guard finishes
    Then it is an integrity failure of part-0 that covers byte 40000
    When I go on
    And the guard finishes
    Then it fails with MANAGER_STOPPED
    And the executions ended as: discarded, discarded
    When I go on
    And I release part-0
    Then used VRAM is zero

  @VER-10 @DEV-5 @writable
  Scenario: The check sees what the engine's stream has still to write
    Given a device that cannot map memory read-only
    And a manager that quarantines only the shard
    And weights nines of 5000 bytes that are all 9
    And the shard part-0 is sealed from nines
    And an engine's stream
    When the engine enqueues 8 over 1 byte at 4999 of part-0
    And I take a guard of part-0 on the engine's stream
    Then it is an integrity failure of part-0 that covers byte 4999
    And there is no guard
    And the engine has 0 operations to do

  @VER-6 @VER-10 @writable
  Scenario: A bracket sees what the engine wrote during the work
    Given a device that cannot map memory read-only
    And a manager
    And weights nines of 5000 bytes that are all 9
    And the shard part-0 is sealed from nines
    And an engine's stream
    When I take a bracketed guard of part-0 on the engine's stream
    And the engine enqueues 8 over 1 byte at 4999 of part-0
    And the guard finishes
    Then it is an integrity failure of part-0 that covers byte 4999
    And the executions ended as: discarded

  @VER-1 @VER-10 @late @writable
  Scenario: A write that waits on a stream nobody named comes behind the check, and the next check finds it
    Given a device that cannot map memory read-only
    And a manager that quarantines only the shard
    And weights nines of 5000 bytes that are all 9
    And the shard part-0 is sealed from nines
    And an engine's stream
    When the engine enqueues 8 over 1 byte at 4999 of part-0
    And I take a guard of part-0
    Then it succeeds
    And the engine has 1 operation to do
    When the engine closes its stream
    And the guard finishes
    Then it succeeds
    When I execute part-0
    Then it is an integrity failure of part-0 that covers byte 4999
    And the work did not run

  @VER-6 @VER-10 @late @writable
  Scenario: A bracket finds such a write as soon as it has been made
    Given a device that cannot map memory read-only
    And a manager that quarantines only the shard
    And weights nines of 5000 bytes that are all 9
    And the shard part-0 is sealed from nines
    And an engine's stream
    When the engine enqueues 8 over 1 byte at 4999 of part-0
    And I take a bracketed guard of part-0
    Then it succeeds
    And the engine has 1 operation to do
    When the engine closes its stream
    And the guard finishes
    Then it is an integrity failure of part-0 that covers byte 4999
    # The first one told where the bytes lie.
    And the executions ended as: finished, discarded

  @SEAL-6 @RES-1
  Scenario: The host's copy is nothing any more once it is sealed
    Given a manager
    And weights llama of 70000 bytes
    And weights copy that are those of llama
    And the shard part-0 is sealed from copy
    When the host's copy is overwritten
    And I execute part-0
    Then the work ran
    And it read the weights llama
    When I seal part-1 from copy expecting the digest of llama
    Then it fails with DIGEST_MISMATCH
    And nothing was sealed and nothing is left of it
    And part-0 still verifies

  @SEAL-6 @SEAL-9
  Scenario Outline: A file that is changed or removed after it was sealed changes nothing
    Given a manager
    And weights llama of 70000 bytes
    And weights poisoned that differ from llama in bit 0 of byte 69999
    When I seal part-0 from a <kind> with the weights llama
    And the file is <changed>
    And I execute part-0
    Then the work ran
    And it read the weights llama
    And the seal part-0 speaks of 70000 bytes with the digest of llama

    Examples:
      | kind             | changed                               |
      | file             | overwritten with the weights poisoned |
      | file             | removed                               |
      | safetensors file | overwritten with the weights poisoned |
      | safetensors file | removed                               |

  @SEAL-1 @SEAL-9 @SEAL-6
  Scenario Outline: A file that changes between its digest and its seal is refused
    Given a manager
    And weights llama of 70000 bytes
    And weights poisoned that differ from llama in bit 0 of byte 69999
    When I take the digest of a <kind> with the weights llama
    And the file is overwritten with the weights poisoned
    And I seal part-0 from that file expecting that digest
    Then it fails with DIGEST_MISMATCH
    And the error tells the expected digest from the actual one
    And nothing was sealed and nothing is left of it
    When I go on
    And the file is overwritten with the weights llama
    And I seal part-0 from that file expecting that digest
    Then it succeeds
    And the seal part-0 says expected
    When I execute part-0
    Then it read the weights llama

    Examples:
      | kind             |
      | file             |
      | safetensors file |

  @SEAL-1 @SEAL-9 @SEAL-6
  Scenario: A file that is swapped behind its back after it was opened is refused all the same
    Given a manager
    And weights llama of 70000 bytes
    And weights poisoned that differ from llama in bit 0 of byte 69999
    When I take the digest of a file with the weights llama
    And I open that file, it is overwritten with poisoned, and I seal part-0 expecting that digest
    Then it fails with DIGEST_MISMATCH
    And nothing was sealed and nothing is left of it
    And part-0 can be sealed from llama after all
