Feature: Verification and tampering
  Bytes in VRAM are digested anew before every use. A change is found, located, and nothing executes.

  @VER-1
  Scenario: Untouched weights verify
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When I verify part-0
    Then it succeeds
    And the digest is that of llama
    And the manager is ready

  @VER-4 @VER-5 @ERR-4
  Scenario Outline: One flipped bit stops everything before the work runs
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    When bit <bit> of byte <byte> of part-0 flips in VRAM
    And I execute part-0
    Then it is an integrity failure of part-0 that covers byte <byte>
    And the work did not run
    And part-0 is quarantined as evidence
    And the manager has stopped for integrity
    When I go on
    And I execute part-1
    Then it fails with MANAGER_STOPPED
    And the work did not run

    Examples:
      | bit | byte  |
      | 0   | 0     |
      | 7   | 1023  |
      | 1   | 1024  |
      | 4   | 32768 |
      | 6   | 69999 |

  @VER-5
  Scenario: A failed verification acts like a failed execution
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When bit 3 of byte 40000 of part-0 flips in VRAM
    And I verify part-0
    Then it is an integrity failure of part-0 that covers byte 40000
    And the manager has stopped for integrity

  @VER-5
  Scenario: By choice only the changed shard is out of service
    Given a manager that quarantines only the shard
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    When bit 3 of byte 40000 of part-0 flips in VRAM
    And I execute part-0
    Then it is an integrity failure of part-0 that covers byte 40000
    And the manager is ready
    When I go on
    And I execute part-1
    Then the work ran
    When I release part-0
    And I seal part-0 from llama
    And I execute part-0
    Then the work ran
    And it read the weights llama

  @VER-5
  Scenario: A quarantined shard is not healed by flipping the bit back
    Given a manager that quarantines only the shard
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When bit 3 of byte 40000 of part-0 flips in VRAM
    And I verify part-0
    Then it fails with SEAL_VERIFICATION_FAILED
    When I go on
    And bit 3 of byte 40000 of part-0 flips in VRAM
    And I execute part-0
    Then it is an integrity failure of part-0 that covers byte 40000
    And the work did not run

  @VER-5
  Scenario: A stopped manager still gives evidence
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    When bit 3 of byte 40000 of part-0 flips in VRAM
    And I verify part-0
    Then it fails with SEAL_VERIFICATION_FAILED
    When I go on
    And I take the digest of part-0 in VRAM
    Then the digest is not that of llama
    And part-1 still verifies
    When I release part-0
    Then it succeeds

  @VER-11 @faults
  Scenario Outline: A digest that does not prove itself is not believed
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the device will <misbehave>
    When I execute part-0
    Then it fails with DEVICE_UNTRUSTED
    And the work did not run
    And the manager has stopped for an-untrusted-device

    Examples:
      | misbehave            |
      | skip a digest        |
      | digest half and say so |
      | repeat an old digest |

  @VER-11 @faults
  Scenario: A digest that claims more than it did disagrees with the record
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the device will digest half and claim all
    When I execute part-0
    Then it fails with SEAL_VERIFICATION_FAILED
    And the work did not run
    And the manager has stopped for integrity
