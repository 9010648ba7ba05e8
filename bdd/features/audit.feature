Feature: Audit trail
  Every step leaves its event, once and in order; a required trail that fails permits nothing and hinders no protection.

  @AUD-1 @VER-5
  Scenario: An integrity failure is critical and complete
    Given the shard llama is sealed
    When bit 0 of byte 4999 of llama flips in VRAM
    And I execute llama
    Then it is an integrity failure of llama that covers byte 4999
    And the trail has, in this order: seal_verification_failed, shard_quarantined, manager_stopped, execute_refused
    And seal_verification_failed is a critical event
    And shard_quarantined is a critical event
    And manager_stopped is a critical event
    And the trail has no gaps

  @AUD-5
  Scenario: Without its trail nothing is sealed
    Given a manager whose policy requires an audit trail
    And the audit sink fails
    When I seal llama
    Then it fails with AUDIT_UNAVAILABLE
    And trying again may help
    And nothing was sealed and nothing is left of it
    When the audit sink works again
    And I seal llama
    Then it succeeds

  @AUD-5 @AUD-1
  Scenario: Without its trail nothing executes, and the gap says what is missing
    Given a manager whose policy requires an audit trail
    And the shard llama is sealed
    And the audit sink fails
    When I execute llama
    Then it fails with AUDIT_UNAVAILABLE
    And the work did not run
    When the audit sink works again
    And I execute llama
    Then the work read the weights of llama
    # A check, and the beginning that was not allowed, and its refusal.
    And the numbers of the trail say that 3 events were lost

  @AUD-5 @SCR-1
  Scenario: Protection does not wait for the trail
    Given a manager whose policy requires an audit trail
    And the shard llama is sealed
    And the shard gemma is sealed
    And the audit sink fails
    When I release gemma
    Then it succeeds
    When bit 0 of byte 0 of llama flips in VRAM
    And I verify llama
    Then it is an integrity failure of llama that covers byte 0
    And the manager has stopped for integrity
