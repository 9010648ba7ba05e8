Feature: Audit events
  Every step leaves its event, once and in order; a required trail that fails permits nothing and hinders no protection.

  @AUD-1
  Scenario: Sealing leaves its events
    Given a manager
    And weights llama of 5000 bytes
    When I seal part-0 from llama
    Then the trail has, in this order: vram_allocated, vram_sealed
    And the trail has no gaps

  @AUD-1 @VER-5
  Scenario: An integrity failure is critical and complete
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When bit 0 of byte 4999 of part-0 flips in VRAM
    And I execute part-0
    Then it fails with SEAL_VERIFICATION_FAILED
    And the trail has, in this order: seal_verification_failed, shard_quarantined, manager_stopped, execute_refused
    And seal_verification_failed is a critical event
    And shard_quarantined is a critical event
    And manager_stopped is a critical event
    And the trail has no gaps

  @AUD-1 @SEAL-1
  Scenario: Weights that are not the expected ones leave the whole story
    Given a manager
    And weights llama of 5000 bytes
    And weights other of 5000 bytes
    When I seal part-0 from other expecting the digest of llama
    Then it fails with DIGEST_MISMATCH
    And the trail has, in this order: vram_allocated, seal_verification_failed, vram_wiped, vram_deallocated, vram_seal_failed

  @AUD-5
  Scenario: Without its trail nothing is sealed
    Given a manager whose policy requires an audit trail
    And weights llama of 5000 bytes
    And the audit sink fails
    When I seal part-0 from llama
    Then it fails with AUDIT_UNAVAILABLE
    And trying again may help
    And nothing was sealed and nothing is left of it
    When the audit sink works again
    And I seal part-0 from llama
    Then it succeeds

  @AUD-5
  Scenario: Without its trail nothing executes
    Given a manager whose policy requires an audit trail
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the audit sink fails
    When I execute part-0
    Then it fails with AUDIT_UNAVAILABLE
    And the work did not run
    When the audit sink works again
    And I execute part-0
    Then the work ran

  @AUD-5 @SCR-1
  Scenario: Protection does not wait for the trail
    Given a manager whose policy requires an audit trail
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    And the audit sink fails
    When I release part-1
    Then it succeeds
    When bit 0 of byte 0 of part-0 flips in VRAM
    And I verify part-0
    Then it fails with SEAL_VERIFICATION_FAILED
    And the manager has stopped for integrity

  @AUD-6 @KEY-3
  Scenario: Events carry neither keys nor tags nor addresses
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When I execute part-0
    And bit 0 of byte 0 of part-0 flips in VRAM
    And I verify part-0
    Then it fails with SEAL_VERIFICATION_FAILED
    And no event shows a key, a tag or an address
